"""The rules of a policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from axonfs.csi.policy import Decision, Policy, Rule, read_policy
from axonfs.errors import UsageError

RULES = Policy(
    (
        Rule(("team-a", "ml-*"), ("nlp/*", "hf/Qwen/*")),
        Rule(("*",), ("hf/meta-llama/*",), token=True),
        Rule(("admin",), ("*",)),
    )
)


@pytest.mark.parametrize(
    ("namespace", "model", "decision"),
    [
        ("team-a", "nlp/tiny", Decision.ALLOWED),
        ("team-a", "nlp/org/deep", Decision.ALLOWED),
        ("ml-serving", "hf/qwen/Qwen3-0.6B", Decision.ALLOWED),
        ("team-b", "nlp/tiny", Decision.REFUSED),
        ("team-ab", "nlp/tiny", Decision.REFUSED),
        ("team-a", "nlpx/tiny", Decision.REFUSED),
        ("team-a", None, Decision.REFUSED),
        (None, "nlp/tiny", Decision.REFUSED),
        ("team-b", "hf/meta-llama/Llama-3", Decision.TOKEN),
        ("team-b", "hf/META-Llama/Llama-3", Decision.TOKEN),
        ("admin", None, Decision.TOKEN),
        ("admin", "hf/meta-llama/Llama-3", Decision.TOKEN),
    ],
)
def test_decisions(namespace: str | None, model: str | None, decision: Decision) -> None:
    """Some rule has to fit, whatever the case of a name; any that asks for a token counts."""
    assert RULES.decide(namespace, model) is decision


def test_all_models_have_those_that_need_a_token() -> None:
    """A volume of all models is no way around a rule that asks for a token, for one of them."""
    gated = Rule(("*",), ("hf/meta-llama/*",), token=True)
    elsewhere = Rule(("team-b",), ("hf/meta-llama/*",), token=True)
    every = Rule(("admin",), ("*",))
    assert Policy((every, gated)).decide("admin", None) is Decision.TOKEN
    assert Policy((every, elsewhere)).decide("admin", None) is Decision.ALLOWED


@pytest.mark.parametrize(
    ("model", "decision"),
    [
        ("nlp/exact", Decision.REFUSED),  # nlp/exact/other is no pattern's
        ("nlp/both", Decision.ALLOWED),
        ("nlp/wide", Decision.ALLOWED),
        ("nlp/wide/inner", Decision.ALLOWED),
        ("nlp/gated", Decision.TOKEN),
        ("vision/any", Decision.TOKEN),  # vision/any/secret
        ("nlp/none", Decision.REFUSED),
    ],
)
def test_all_versions_have_the_models_below(model: str, decision: Decision) -> None:
    """A volume of all versions of a model shows the models whose names continue its name, too."""
    plain = ("nlp/exact", "nlp/both", "nlp/both/*", "nlp/wide*", "nlp/gated*", "vision/*")
    gated = Rule(("team",), ("nlp/GATED/secret", "vision/*/secret"), token=True)
    policy = Policy((Rule(("team",), plain), gated))
    assert policy.decide("team", model, below=True) is decision
    assert policy.decide("other", model, below=True) is Decision.REFUSED


def test_pins() -> None:
    """Any fitting rule may refuse them; without one the namespace may pin."""
    policy = Policy((Rule(("*",), ("*",), pin=False), Rule(("ops",), ("nlp/*",))))
    assert not policy.may_pin("team", "nlp/tiny")
    assert not policy.may_pin("ops", "nlp/tiny")
    assert RULES.may_pin("team-a", "nlp/tiny")
    assert Policy().may_pin(None, "nlp/tiny")


def test_no_policy_allows_all() -> None:
    assert Policy().decide(None, None) is Decision.ALLOWED
    assert read_policy(None) == Policy()


@pytest.mark.parametrize(
    "text",
    [
        "rules: {}",
        "- a",
        "rules: [5]",
        "rules: [{namespaces: a}]",
        "rules: [{namespaces: a, models: b, more: c}]",
        "rules: [{namespaces: a, models: [5]}]",
        "rules: [{namespaces: a, models: ''}]",
        "rules: [{namespaces: a, models: b, token: true}]",
        "rules: [{namespaces: a, models: b, pin: false}]",
        "rule: []",
        "",
    ],
)
def test_malformed_files(tmp_path: Path, text: str) -> None:
    """A file that says nothing, or something else, never allows everything."""
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"policy\.yaml"):
        read_policy(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_policy(tmp_path / "none")
