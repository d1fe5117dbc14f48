"""Versions of a registry of files in an OCI registry: their names, and what refers to a model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from axonfs.errors import MalformedError, UsageError
from axonfs.names import Spec
from axonfs.oci import place_of
from axonfs.oci.manifest import IMAGE, Descriptor, digest_of
from axonfs.oci.place import version_of
from axonfs.oci.referrers import (
    MANIFEST,
    SIGNATURES,
    TABLE,
    TABLES,
    listed,
    parse_artifact,
    render_artifact,
    with_artifact,
)

MODEL, OWN = Descriptor(IMAGE, "a" * 64, 500), Descriptor(MANIFEST, "b" * 64, 300)
ARTIFACT = render_artifact(MODEL, [OWN], yanked=True)


def layer(kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{'c' * 64}", "size": 1}


@pytest.mark.parametrize(
    ("spec", "reference"),
    [
        (Spec("nlp", "tiny", "1.0.0"), "oci://h/p/nlp/tiny:1.0.0"),
        (Spec("nlp", "a/b-c", "1.0.0-rc.1+cu"), "oci://h/p/nlp/a/b-c:1.0.0-rc.1_cu"),
        (Spec("nlp", "tiny", "A_b"), "oci://h/p/nlp/tiny:A_b"),
    ],
)
def test_a_version_is_a_tag(spec: Spec, reference: str) -> None:
    found = place_of("oci://h/p").reference(spec)
    assert str(found) == reference
    assert version_of(found.tag) == spec.version


@pytest.mark.parametrize(
    ("model", "version"),
    [("Tiny", "1.0"), ("a+b", "1.0"), ("tiny", "1" * 129), ("tiny", f"sha256-{'0' * 64}")],
)
def test_what_oci_does_not_allow_is_refused(model: str, version: str) -> None:
    with pytest.raises(UsageError, match=r"OCI allows .*; publish the model under another name"):
        place_of("oci://h/p").reference(Spec("nlp", model, version))


def test_an_artifact_is_of_one_model() -> None:
    found = parse_artifact(ARTIFACT, MODEL.digest)
    assert (found.manifest, found.signatures, found.yanked) == (OWN, None, True)
    with pytest.raises(MalformedError, match="refers to another model"):
        parse_artifact(ARTIFACT, OWN.digest)


def test_an_artifact_without_a_version_keeps_chunk_tables() -> None:
    table = Descriptor(TABLE, "c" * 64, 40)
    found = parse_artifact(render_artifact(MODEL, [table], yanked=False), MODEL.digest)
    assert found.manifest is None
    assert found.tables == {table.digest}
    [one] = listed(with_artifact(None, render_artifact(MODEL, [table], yanked=False), ()))
    assert not one.has_version


@pytest.mark.parametrize(
    "change",
    [
        {"artifactType": "other"},
        {"artifactType": TABLES},
        {"layers": []},
        {"layers": [layer(MANIFEST)] * 2},
        {"layers": [layer(SIGNATURES)]},
        {"layers": None},
        {"layers": [{"mediaType": MANIFEST, "digest": "sha256:x", "size": 1}]},
        {"subject": None},
    ],
)
def test_a_malformed_artifact_is_refused(change: dict[str, Any]) -> None:
    raw = json.dumps({**json.loads(ARTIFACT), **change}).encode()
    with pytest.raises(MalformedError):
        parse_artifact(raw, MODEL.digest)


def test_an_artifact_joins_what_others_have_listed() -> None:
    other = {"mediaType": IMAGE, "digest": f"sha256:{'c' * 64}", "size": 9, "artifactType": "sbom"}
    before = json.dumps({"manifests": [other], "annotations": {"a": "b"}}, indent=1).encode()
    index = with_artifact(before, ARTIFACT, ())
    assert [one.digest for one in listed(index)] == [digest_of(ARTIFACT)]
    assert json.loads(index)["manifests"][0] == other
    assert json.loads(index)["annotations"] == {"a": "b"}
    reordered = {"manifests": json.loads(index)["manifests"][::-1]}
    for same in (index, json.dumps(reordered).encode()):
        assert with_artifact(same, ARTIFACT, [digest_of(ARTIFACT)]) == same
    newer = render_artifact(MODEL, [OWN], yanked=False)
    replaced = with_artifact(index, newer, [digest_of(ARTIFACT)])
    assert [one.digest for one in listed(replaced)] == [digest_of(newer)]
    assert listed(b'{"manifests": null}') == []
    with pytest.raises(MalformedError, match="web page"):
        listed(b"<html>")
    with pytest.raises(MalformedError, match="is not an index"):
        with_artifact(ARTIFACT, newer, ())
