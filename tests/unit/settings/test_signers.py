"""The rules of `require_signature`: how they are written, and which of them is for a version."""

from __future__ import annotations

from pathlib import Path

import pytest

from axonfs.http_client.urls import target_of
from axonfs.names import parse_spec
from axonfs.settings.items import separated
from axonfs.settings.signers import SignatureRules, TrustedSigner, parse_signature_rules

A, B, C = "https://a.example", "https://b.example/models", "https://c.example"


def required(rules: str, spec: str, base: str = A, registries: tuple[str, ...] = (A, B)) -> object:
    found = SignatureRules.of(parse_signature_rules(rules))
    groups = found.required(parse_spec(spec), f"{base}/", registries)
    return [[str(signer) for signer in group] for group in groups]


def test_each_way_to_name_a_signer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rules = parse_signature_rules("team.pub alice@x.org,ca.pem a@x.org,https://accounts.x.org")
    here = tmp_path.resolve()
    assert rules == (
        f"{here}/team.pub",
        f"alice@x.org,{here}/ca.pem",
        "a@x.org,https://accounts.x.org",
    )
    signers = SignatureRules.of(rules).everywhere
    assert signers[1] == TrustedSigner(f"{here}/ca.pem", "alice@x.org")
    assert [signer.keyless for signer in signers] == [False, False, True]
    assert parse_signature_rules(rules) == rules
    assert not SignatureRules.of(parse_signature_rules("none"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://accounts.x.org", "names no identity"),
        ("nlp/../x=/k.pub", "neither a model nor a registry"),
        ("ftp://x/=/k.pub", "is not an http"),
        ("nlp/=", "is not a path"),
        ("http://x/k.pub", "is a URL"),
        ("oci://x/org=/k.pub", "write oci/ALIAS/"),
    ],
)
def test_what_is_no_rule_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_signature_rules(text)


def test_the_rule_with_the_longest_model_applies() -> None:
    rules = f"/all.pub nlp/=/nlp.pub nlp/tiny=/tiny.pub hf=none {A}=/a.pub"
    assert required(rules, "nlp/tiny@1") == [["/tiny.pub"]]
    assert required(rules, "nlp/tiny2@1") == [["/nlp.pub"]]
    assert required(rules, "nlp/org/tiny@1") == [["/nlp.pub"]]
    assert required(rules, "vision/tiny@1") == [["/a.pub"]]
    assert required(rules, "vision/tiny@1", B) == [["/all.pub"]]
    assert required(rules, "hf/gpt2@main") == []
    assert required("nlp/=/nlp.pub", "vision/x@1") == []
    assert required(f"{A}=/a.pub", "hf/gpt2@main", "hf://gpt2@abc") == []
    assert required(f"{A}=/a.pub /all.pub", "oci/x/y@1", "oci://x/y@sha256:1") == [["/all.pub"]]


def test_a_registry_that_redirects_elsewhere_escapes_no_rule() -> None:
    rules = f"/all.pub {A}=/a.pub {B}=none"
    assert required(rules, "nlp/tiny@1", B) == []
    assert required(rules, "nlp/tiny@1", C) == [["/a.pub"], ["/all.pub"]]
    assert required(f"{A}=/a.pub", "nlp/tiny@1", C, (B,)) == [["/a.pub"]]
    assert required("/all.pub", "nlp/tiny@1", C, ()) == [["/all.pub"]]


def test_a_rule_is_for_its_registry_however_the_url_is_written() -> None:
    rules = SignatureRules.of(parse_signature_rules("https://A.example:443=/a.pub"))
    spelled = rules.spelled(lambda url: str(target_of(url, signed=True)))
    assert spelled.required(parse_spec("nlp/tiny@1"), f"{A}/", (A,)) == [(TrustedSigner("/a.pub"),)]


def test_options_of_a_bucket_are_no_part_of_its_rule() -> None:
    url = "s3://models/prod?region=eu-west-1"
    rules = f"{url}=/prod.pub"
    assert required(rules, "nlp/tiny@1", "s3://models/prod", (url,)) == [["/prod.pub"]]


def test_a_registry_in_the_config_file_may_have_its_own_signers() -> None:
    document = {
        "registries": [{"url": A, "require_signature": ["/a.pub", "/b.pub"]}, B],
        "require_signature": "/all.pub",
    }
    found = separated(document)
    assert found["registries"] == [A, B]
    assert found["require_signature"] == ["/all.pub", f"{A}=/a.pub", f"{A}=/b.pub"]
    assert required(found["require_signature"], "nlp/tiny@1") == [["/a.pub", "/b.pub"]]
