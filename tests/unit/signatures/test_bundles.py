"""The file of a version's signatures: what of it is taken, before anything is verified."""

from __future__ import annotations

from dataclasses import replace

import pytest

from axonfs.errors import MalformedError
from axonfs.formats.manifest import FileEntry, Manifest, render_manifest
from axonfs.names import parse_spec
from axonfs.signatures import (
    MAX_SIGNATURES,
    limit_of,
    merged,
    parse_signature,
    parse_signatures,
    unlike,
)
from tests.support.signing import bundle


def manifest(spec: str = "nlp/tiny@1.0.0", digest: str = "ab" * 32) -> Manifest:
    made = Manifest(parse_spec(spec), (FileEntry("a.bin", 3, digest),))
    return replace(made, raw=render_manifest(made))


@pytest.mark.parametrize(
    "line",
    [
        b"<!doctype html>",
        b"{}",
        b"[" * 100,
        b"[" * 100_000,
        b"[1," * 400 + b"1",
        b'{"a":' * 400 + b"1" + b"}" * 400,
        bundle(manifest(), mediaType="text/plain"),
        bundle(manifest(), verificationMaterial={}),
        bundle(manifest(), verificationMaterial={"publicKey": {"hint": ""}}),
        bundle(manifest(), verificationMaterial=[]),
        bundle(manifest(), dsseEnvelope={"payload": "?", "signatures": [{}]}),
        bundle(manifest(), dsseEnvelope={"payload": "", "signatures": []}),
        bundle(manifest(), more="x" * (1 << 17)),
        bundle(manifest()).replace(b"{", b"{" + b'"x":[' + b"{}," * 600 + b"1],", 1),
        b"\xff\xfe",
    ],
)
def test_what_is_no_bundle_is_refused(line: bytes) -> None:
    with pytest.raises(MalformedError, match="a signature"):
        parse_signature(line)


def test_a_file_has_some_signatures_at_most() -> None:
    line = bundle(manifest()) + b"\n"
    assert len(parse_signatures(line * MAX_SIGNATURES)) == MAX_SIGNATURES
    with pytest.raises(MalformedError, match="more than 16"):
        parse_signatures(line * (MAX_SIGNATURES + 1))


def test_a_signature_is_of_one_manifest() -> None:
    one = manifest()
    signature = parse_signature(bundle(one))
    assert unlike(signature, one) is None
    assert unlike(signature, manifest("nlp/tiny@1.0.1")) == "manifest.yaml"
    assert unlike(signature, manifest("nlp/other@1.0.0")) == "manifest.yaml"
    assert unlike(signature, manifest(digest="cd" * 32)) == "a.bin"
    described = replace(one, description="else")
    described = replace(described, raw=render_manifest(described))
    assert unlike(signature, described) == "manifest.yaml"
    assert unlike(replace(signature, statement=b"[" * 9999), one) == "its statement"


def test_new_signatures_come_last_and_replace_what_they_should() -> None:
    one, other = manifest(), manifest(digest="cd" * 32)
    before = b"\n".join(
        [bundle(one, "k1"), b"rubbish", bundle(other, "k2"), b"", bundle(one, "k3")]
    )
    new = parse_signature(bundle(one, "k4"))
    after = merged(before, [new], one, lambda signature: signature.key == "k1")
    assert [signature.key for signature in parse_signatures(after)] == ["k3", "k4"]
    assert merged(after, [new], one) == after, "the same signature again changes nothing"
    many = [parse_signature(bundle(one, f"m{number}")) for number in range(MAX_SIGNATURES)]
    assert [item.key for item in parse_signatures(merged(after, many, one))] == [
        f"m{number}" for number in range(MAX_SIGNATURES)
    ]
    assert len(merged(after, many, one)) < limit_of(one)
    after = merged(before, [new], one, lambda signature: True, others=True)
    assert [signature.key for signature in parse_signatures(after)] == ["k2", "k4"]


def test_signatures_of_many_files_with_long_names_fit() -> None:
    files = tuple(FileEntry(f"{'ü' * 80}/{'模' * 60}-{n}.bin", 1, "ab" * 32) for n in range(500))
    made = Manifest(parse_spec("nlp/tiny@1.0.0"), files)
    made = replace(made, raw=render_manifest(made))
    line = bundle(made)
    assert unlike(parse_signature(line), made) is None
    assert len(line) * MAX_SIGNATURES < limit_of(made)
