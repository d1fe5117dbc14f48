"""Names, challenges, credentials and manifests of OCI registries."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from axonfs.errors import MalformedError, UnavailableError, UsageError
from axonfs.http_client import Answer, Said, Trust
from axonfs.http_client.fields import fields
from axonfs.names import parse_spec
from axonfs.oci import credentials
from axonfs.oci.challenge import Challenge, chosen
from axonfs.oci.credentials import Credentials, credentials_of
from axonfs.oci.faults import refusal
from axonfs.oci.manifest import METADATA, Descriptor, Model, parse
from axonfs.oci.packing import PackedFile, manifest_of
from axonfs.oci.place import place_of, reference_of, repository_of
from axonfs.oci.tokens import Host
from axonfs.oci.uploads import _location
from axonfs.settings.parsers import parse_registry_url, parse_registry_urls
from tests.support.dockerregistry import TITLE, Packed, sha256


def raw(model: Packed, **more: Any) -> bytes:
    return json.dumps({**model.manifest, **more}).encode()


def test_a_url_says_where_a_registry_is_and_how_to_reach_it() -> None:
    place = place_of(parse_registry_url("oci://Host:5000/a/b/?mirror=m/x&mirror=n&alias=team"))
    assert (place.url, place.prefix, place.alias) == ("oci://host:5000/a/b", "a/b/", "team")
    assert place.mirrors == ("m/x", "n")
    assert place_of("oci://ghcr.io").alias == "ghcr.io"
    assert place_of("oci://[::1]:5000/a").alias == "1-5000"


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("oci://localhost:5000", True),
        ("oci://127.0.0.7", True),
        ("oci://[::1]:5000", True),
        ("oci://localhost.example.com", False),
        ("oci://10.0.0.1:5000", False),
        ("oci://10.0.0.1:5000?plain_http=yes", True),
        ("oci://localhost:5000?plain_http=no", False),
    ],
)
def test_only_this_machine_is_reached_without_tls_unless_the_url_says_so(
    url: str, plain: bool
) -> None:
    assert place_of(url).plain_http is plain


@pytest.mark.parametrize(
    "url",
    [
        "oci://",
        "oci://host/UPPER",
        "oci://host/a//b",
        "oci://host/../b",
        "oci://user:pass@host/a",
        "oci://host/a?alias=a/b",
        "oci://host/a?alias=a&alias=b",
        "oci://host/a?mirror=https://m",
        "oci://host/a?other=1",
        "oci://host/a b",
        "oci://host:99999/a",
        "oci://host:0/a",
        "oci://a..b/a",
        f"oci://{'a' * 64}.example.com/a",
        "oci://host/a?mirror=m:99999",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^has "):
        parse_registry_url(url)


def test_two_registries_may_not_have_one_alias() -> None:
    urls = ["oci://h/a", "oci://h/b?alias=b", "oci://h/c"]
    with pytest.raises(ValueError, match=r"has the alias of oci://h/a; .*\?alias=NAME"):
        parse_registry_urls(urls)
    assert len(parse_registry_urls(urls[:2])) == 2


def test_what_docker_writes_is_understood_or_corrected() -> None:
    digest = "0" * 63 + "1"
    assert parse_spec(f"oci/a/b@sha256:{digest}").version == f"sha256-{digest}"
    with pytest.raises(UsageError, match=r"write oci/a/b@1\.0$"):
        parse_spec("oci/a/b:1.0")


def test_a_reference_has_a_repository_and_a_tag() -> None:
    assert str(reference_of("oci://h:1/a/b:v1.0")) == "oci://h:1/a/b:v1.0"
    for url in ("oci://h:1/a/b", "oci://h:1", "oci://h/a:", "oci://h/a:-x", "oci://h:1/:tag"):
        with pytest.raises(UsageError, match="oci://host/repository:tag"):
            reference_of(url)


def test_a_password_in_a_reference_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError, match="has credentials in it") as caught:
        reference_of("oci://me:s3cret@h/a:1")
    assert "s3cret" not in str(caught.value)


def test_the_repository_of_a_url() -> None:
    assert repository_of("oci://h/v2/a/b/manifests/x") == "a/b"
    assert repository_of("oci://h/v2/blobs/blobs/sha256:ab") == "blobs"
    assert repository_of("oci://h/v2/a/manifests/b/tags/list?n=1000") == "a/manifests/b"
    assert repository_of("oci://h/v2/_catalog") == ""


def test_a_bearer_challenge_is_preferred() -> None:
    text = 'Basic realm="x, y", Bearer realm="https://a/t",service="s\\"q",scope="r:a,b:pull"'
    assert chosen(text) == Challenge(
        "bearer", {"realm": "https://a/t", "service": 's"q', "scope": "r:a,b:pull"}
    )
    assert chosen('Basic realm="x"') == Challenge("basic", {"realm": "x"})
    lines = ("Negotiate", 'Basic realm="x"', 'Bearer realm="https://a/t"')
    sent = fields((b"WWW-Authenticate", line.encode()) for line in lines)
    assert chosen(sent["www-authenticate"]) == Challenge("bearer", {"realm": "https://a/t"})
    assert chosen("Negotiate") is None
    assert chosen(None) is None
    assert chosen("Bearer") is None


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's directory, and no other one with credentials."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(docker: Path, config: object) -> None:
    (docker / "config.json").write_text(json.dumps(config))


def test_credentials_come_from_dockers_file(docker: Path) -> None:
    assert credentials_of("h:1") is None
    auth = base64.b64encode(b"me:a:b").decode()
    write(docker, {"auths": {"https://h:1": {"auth": auth}, "i": {"identitytoken": "t"}}})
    assert credentials_of("h:1") == Credentials("me", "a:b")
    assert credentials_of("i") == Credentials(identity="t")
    assert credentials_of("other") is None
    assert "a:b" not in repr(credentials_of("h:1"))


def test_podman_keeps_credentials_of_a_part_of_a_registry(
    docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (docker / "auth.json").write_text(
        json.dumps({"auths": {"h": {"auth": "YTpi"}, "h/team": {"username": "c", "password": "d"}}})
    )
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(docker / "auth.json"))
    assert credentials_of("h", "team/model") == Credentials("c", "d")
    assert credentials_of("h", "teams/model") == Credentials("a", "b")


def test_a_credential_helper_is_asked(docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = docker / "docker-credential-test"
    helper.write_text(
        '#!/bin/sh\nread host; echo "{\\"Username\\": \\"$host\\", \\"Secret\\": \\"s\\"}"'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker}:/usr/bin:/bin")
    write(docker, {"credHelpers": {"one": "test"}, "credsStore": "../test"})
    assert credentials_of("one") == Credentials("one", "s")
    assert credentials_of("two") is None  # no path, and no program
    write(docker, {"credsStore": "test"})
    assert credentials_of("two") == Credentials("two", "s")


@pytest.mark.complains
@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("exec sleep 9", "no answer within 0.2 s"),
        ("echo 'the keychain is locked'; exit 1", "exit code 1: the keychain is locked"),
        ("echo log in again >&2; exit 2", "exit code 2: log in again"),
        ('echo \'{"Secret": "s3cret"}\'; exit 1', "exit code 1: $"),
        ("echo s3cret", "it printed no JSON"),
        ("printf '[%.0s' $(seq 100000)", "it printed no JSON"),
        ("echo credentials not found in native keychain; exit 1", None),
    ],
)
def test_a_credential_helper_that_fails_is_asked_once(
    docker: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    script: str,
    complaint: str | None,
) -> None:
    helper = docker / "docker-credential-test"
    helper.write_text(f"#!/bin/sh\necho asked >>{docker}/asked\n{script}\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker}:/usr/bin:/bin")
    monkeypatch.setattr(credentials, "HELPER_SECONDS", 0.2 if "sleep" in script else 30)
    write(docker, {"credsStore": "test"})
    assert credentials_of("h") is None
    assert (docker / "asked").read_text() == "asked\n"
    assert bool(complaint) == bool(caplog.messages)
    assert not complaint or re.search(complaint, caplog.messages[0])
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("runtime", [True, False])
def test_podman_and_skopeo_keep_credentials_in_places_of_their_own(
    docker: Path, monkeypatch: pytest.MonkeyPatch, runtime: bool
) -> None:
    monkeypatch.setattr(credentials, "_RUN", str(docker / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(docker / "config"))
    own = docker / f"run/{os.geteuid()}/auth.json"
    if runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(docker / "runtime"))
        own = docker / "runtime/containers/auth.json"
    for path, host in ((own, "h"), (docker / "config/containers/auth.json", "i")):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"auths": {host: {"auth": "YTpi"}}}))
    assert credentials_of("h") == credentials_of("i") == Credentials("a", "b")


@pytest.mark.complains
@pytest.mark.parametrize("text", ["{", "[]", '{"auths": []}', '{"auths": {"h": {"auth": "*"}}}'])
def test_a_malformed_file_has_no_credentials(docker: Path, text: str) -> None:
    (docker / "config.json").write_text(text)
    assert credentials_of("h") is None


def test_a_password_is_not_sent_in_the_clear(docker: Path) -> None:
    write(docker, {"auths": {"registry.example.com": {"auth": "YTpi"}}})
    realm = {"www-authenticate": 'Bearer realm="http://tokens.example.com/",service="s"'}
    refusal = Answer("https://registry.example.com/v2/", 401, realm)
    host = Host("registry.example.com", Trust(), plain_http=False)
    with pytest.raises(UnavailableError, match=r"tokens\.example\.com.*not encrypted"):
        host.refused("repository:a:pull", None, refusal, b"")


def test_a_model_is_not_uploaded_in_the_clear() -> None:
    begun = Answer("https://h/v2/a/blobs/uploads/", 202, {"location": "http://h/v2/up"})
    with pytest.raises(UnavailableError, match=r"not encrypted.*X-Forwarded-Proto"):
        _location(Said(begun, b""))


@pytest.mark.parametrize(
    ("code", "advice"), [("NAME_UNKNOWN", "create the rep"), ("MANIFEST_BLOB_UNKNOWN", "again")]
)
def test_a_refusal_of_a_registry_says_what_to_do(code: str, advice: str) -> None:
    said = json.dumps({"errors": [{"code": code, "message": "no"}]}).encode()
    error = refusal(Answer("https://h/v2/a/blobs/uploads/", 404, {}), said, "an upload")
    assert f"answered 404 to an upload ({code}: no)" in str(error)
    assert advice in str(error.hint)


def test_the_layouts_of_modelpack_kitops_and_oras() -> None:
    mode = {"org.cncf.model.file.metadata+json": '{"mode": 493}'}
    kind = "application/vnd.cncf.model.weight.v1"
    model = (
        Packed()
        .add("a/b.bin", b"1", f"{kind}.raw", {"org.cncf.model.filepath": "./a/b.bin", **mode})
        .add("", b"2", "text/plain", {TITLE: "README.md"})
        .add("dir", b"3", f"{kind}.tar")
        .add("", b"4", "application/vnd.kitops.modelkit.model.v1.tar+gzip", {})
        .add("", b"5", "application/x", {TITLE: "d", "io.deis.oras.content.unpack": "true"})
    )
    found = parse(raw(model))
    assert isinstance(found, Model)
    assert [(layer.path, layer.packing, layer.executable) for layer in found.layers] == [
        ("a/b.bin", "raw", True),
        ("README.md", "raw", False),
        ("dir", "tar", False),
        ("", "tar+gzip", False),
        ("d", "tar+gzip", False),
    ]
    assert found.layers[0].blob.digest == sha256(b"1").removeprefix("sha256:")


def paths_of(model: Packed) -> list[tuple[str, str]]:
    found = parse(raw(model))
    assert isinstance(found, Model)
    return [(layer.path, layer.packing) for layer in found.layers]


def test_layers_of_docker_model_runner_and_ollama_have_usual_names() -> None:
    docker, ollama = "application/vnd.docker.ai", "application/vnd.ollama.image"
    config = "application/vnd.docker.ai.model.config.v0.1+json"
    one = Packed(config_type=config).add("", b"1", f"{docker}.gguf.v3", {})
    one.add("", b"2", f"{docker}.license", {}).add("", b"3", f"{docker}.dir.tar", {})
    assert paths_of(one) == [("model.gguf", "raw"), ("LICENSE", "raw"), ("", "tar")]
    parts = Packed().add("", b"1", f"{docker}.safetensors", {})
    parts.add("", b"2", f"{docker}.safetensors", {}).add("c.json", b"3", f"{docker}.safetensors")
    assert [path for path, _ in paths_of(parts)] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "c.json",
    ]
    pulled = Packed(config_type="application/vnd.docker.container.image.v1+json")
    pulled.add("", b"1", f"{ollama}.model", {}).add("", b"2", f"{ollama}.params", {})
    assert paths_of(pulled) == [("model.gguf", "raw"), ("params.json", "raw")]


def test_a_directory_that_the_python_library_of_oras_packs_is_an_archive() -> None:
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    model = Packed().add("", b"1", kind, {TITLE: "d"}).add("", b"2", kind, {TITLE: "data.tar.gz"})
    assert paths_of(model) == [("d", "tar+gzip"), ("data.tar.gz", "raw")]


@pytest.mark.parametrize(
    ("modified", "text"), [(1e15, "9999-12-31T23:59:59Z"), (-1e15, "0001-01-01T00:00:00Z")]
)
def test_a_time_that_no_calendar_has_is_cut(modified: float, text: str) -> None:
    file = PackedFile("a", 1, "a" * 64, False, modified)
    made = json.loads(manifest_of(Descriptor("x", "b" * 64, 2), [file], 0))
    assert json.loads(made["layers"][0]["annotations"][METADATA])["mtime"] == text


def listed(*digests: str, **annotations: str) -> bytes:
    items = [
        {"digest": f"sha256:{one * 64}", "size": 1, "annotations": annotations} for one in digests
    ]
    return json.dumps({"schemaVersion": 2, "manifests": items}).encode()


def test_an_index_with_one_manifest_stands_for_it() -> None:
    assert parse(listed("a")) == "a" * 64
    with pytest.raises(MalformedError, match=r"index of 2 manifests.*@sha256:aaa") as caught:
        parse(listed("a", "b"))
    assert "name one of them" in str(caught.value)
    with pytest.raises(MalformedError, match="index of 0 manifests"):
        parse(listed("a", **{"vnd.docker.reference.type": "attestation-manifest"}))


BAD = {
    "page": (b"<html>", "web page"),
    "no json": (b"{", "not JSON"),
    "list": (b"[]", "not a JSON object"),
    "schema 1": (b'{"schemaVersion": 1}', "schema 1"),
    "no layers": (b'{"mediaType": "text/x"}', "media type is 'text/x'"),
    "traversal": (raw(Packed().add("../../etc/passwd", b"x")), "not a plain relative path"),
    "absolute": (raw(Packed().add("/etc/passwd", b"x")), "not a plain relative path"),
    "twice": (raw(Packed().add("a", b"x").add("./a", b"y")), "two layers have the path 'a'"),
    "no name": (raw(Packed().add("", b"x", "text/x", {})), "layer 1 of media type 'text/x' names"),
    "sha512": (
        raw(Packed(layers=[{"digest": "sha512:" + "a" * 128, "size": 1}])),
        "no sha256 digest",
    ),
    "size": (raw(Packed(layers=[{"digest": sha256(b""), "size": -1}])), "no valid size"),
    "bool": (raw(Packed(layers=[{"digest": sha256(b""), "size": True}])), "no valid size"),
    "container": (
        raw(
            Packed(config_type="application/vnd.oci.image.config.v1+json").add(
                "", b"x", "application/vnd.oci.image.layer.v1.tar+gzip", {}
            )
        ),
        "container image",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_model_is_refused(name: str) -> None:
    body, message = BAD[name]
    with pytest.raises(MalformedError, match=message):
        parse(body)
