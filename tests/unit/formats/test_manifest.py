"""Manifests: what reads back, what Axon wrote, and everything that is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.errors import MalformedError
from axonfs.formats.manifest import (
    MAX_CHUNKS,
    MAX_FILES,
    MAX_SIZE,
    ChunkRef,
    FileEntry,
    Manifest,
    parse_manifest,
    render_manifest,
)
from axonfs.names import Spec, plain
from tests.support.axon import DIGEST, WRITTEN

SPEC = Spec("nlp", "llama", "1.0.0")

SEGMENTS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,8}", fullmatch=True)
DIGESTS = st.binary(min_size=32, max_size=32).filter(any).map(bytes.hex) | st.just("1" * 64)
TEXTS = st.text(max_size=30).map(plain)
CHUNKS = st.builds(ChunkRef, st.integers(16, 26).map(lambda power: 1 << power), DIGESTS)
PLAIN_PATHS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1)
    .filter(lambda name: name not in (".", "..", "manifest.yaml"))
    .map(lambda name: name[:20]),
    min_size=1,
    max_size=3,
).map("/".join)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    paths = draw(st.sets(PLAIN_PATHS, min_size=1, max_size=6))
    parents = {path[:at] for path in paths for at, char in enumerate(path) if char == "/"}
    files = []
    for path in sorted(paths - parents):
        size = draw(st.integers(0, 1 << 34))
        chunks = draw(st.none() | CHUNKS) if size else None
        files.append(FileEntry(path, size, draw(DIGESTS), chunks))
    return Manifest(
        spec=Spec(
            draw(SEGMENTS),
            "/".join(draw(st.lists(SEGMENTS, min_size=1, max_size=3))),
            draw(SEGMENTS.filter(lambda text: text != "latest")),
        ),
        files=tuple(files),
        description=draw(TEXTS),
        license=draw(TEXTS),
        framework=draw(TEXTS),
        format=draw(TEXTS),
        tags=tuple(draw(st.lists(TEXTS.filter(bool), max_size=3))),
        created=draw(st.integers(0, 4 * 10**9)),
        execution_format=draw(TEXTS),
    )


@given(manifests())
def test_what_is_rendered_reads_back(manifest: Manifest) -> None:
    raw = render_manifest(manifest)
    assert parse_manifest(raw, manifest.spec) == dataclasses.replace(manifest, raw=raw)
    for entry in manifest.files:
        assert manifest.file(entry.path) == entry


def test_the_bytes_of_a_manifest_are_these() -> None:
    files = (
        FileEntry("config.json", 0, "e3b0" + "0" * 60),
        FileEntry("w.safetensors", 5, DIGEST, ChunkRef(1 << 20, "1" * 64)),
    )
    manifest = Manifest(SPEC, files, "Größe: 7", "MIT", "pytorch", "safetensors", ("a",), 1.5)
    assert render_manifest(manifest).decode() == (
        "apiVersion: axon.mlos.io/v1\nkind: Model\nmetadata:\n  name: llama\n  namespace: nlp\n"
        "  version: 1.0.0\n  description: 'Größe: 7'\n  license: MIT\n"
        "  created: '1970-01-01T00:00:01.500000Z'\n  tags:\n  - a\n"
        "spec:\n  framework:\n    name: pytorch\n  format:\n    type: safetensors\n    files:\n"
        f"    - path: config.json\n      size: 0\n      sha256: e3b0{'0' * 60}\n"
        f"    - path: w.safetensors\n      size: 5\n      sha256: {DIGEST}\n"
        f"      chunks:\n        size: 1048576\n        sha256: '{'1' * 64}'\n"
    )


def test_a_manifest_that_axon_wrote_is_read() -> None:
    manifest = parse_manifest(WRITTEN.encode(), Spec("hf", "deepset/roberta", "latest"))
    assert manifest.spec == Spec("hf", "deepset/roberta", "1.10")
    assert manifest.description == "Question answering, extractive"
    assert (manifest.framework, manifest.format, manifest.license) == (
        "PyTorch",
        "safetensors",
        "cc-by-4.0",
    )
    assert manifest.execution_format == "onnx"
    assert manifest.tags == ("qa", "2024")
    assert manifest.created == 1709287200.0
    assert manifest.files == (
        FileEntry("config.json", 571, "1" * 64),
        FileEntry("model.safetensors", 496313727, DIGEST),
    )
    assert manifest.size == 571 + 496313727
    assert manifest.digest == hashlib.sha256(WRITTEN.encode()).hexdigest()
    assert manifest.file("model.safetensors") is manifest.files[1]
    assert manifest.file("model") is None


def tree(*files: object, **metadata: object) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Model",
        "metadata": {"namespace": "nlp", "name": "llama", "version": "1.0.0", **metadata},
        "spec": {"format": {"files": list(files)}},
    }


def file(path: object = "a", size: object = 1, **more: object) -> dict[str, object]:
    return {"path": path, "size": size, "sha256": DIGEST, **more}


def parse(document: object, expected: Spec | None = None) -> Manifest:
    return parse_manifest(json.dumps(document).encode(), expected)


def test_json_and_the_short_api_version_will_do() -> None:
    assert parse(tree(file()), SPEC).files == (FileEntry("a", 1, DIGEST),)


@pytest.mark.parametrize("created", [None, 5, "soon", "9999-99-99", "0001-01-01T00:00:00Z", []])
def test_a_time_that_cannot_be_read_is_unknown(created: object) -> None:
    assert parse(tree(file(), created=created)).created == 0.0


def test_the_chunks_of_an_empty_file_do_not_matter() -> None:
    assert parse(tree(file(size=0, chunks=[7]))).files[0].chunks is None


def test_a_file_that_no_directory_can_hold_is_left_out() -> None:
    paths = ["a", "x" * 256, "/".join(["x" * 100] * 31), "b\n"]
    parsed = parse(tree(*map(file, paths)))
    assert [entry.path for entry in parsed.files] == ["a", "b\n"]
    assert len(parsed.left_out) == 2
    assert all(path.isprintable() for path in parsed.left_out)


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        (7, "not a mapping"),
        ({"size": 1, "sha256": DIGEST}, "no path"),
        (file(path=["a"]), "no path"),
        (file(path="../a"), "relative path"),
        (file(path="/a"), "relative path"),
        (file(path="a\0b"), "relative path"),
        (file(path="manifest.yaml"), "manifest's own"),
        (file(path="manifest.yaml/a"), "manifest's own"),
        (file(size=-1), "whole number"),
        (file(size=True), "whole number"),
        (file(size=1.0), "whole number"),
        (file(size="1"), "whole number"),
        (file(size=None), "whole number"),
        (file(size=MAX_SIZE + 1), "whole number"),
        (file(size=10**30), "whole number"),
        (file(size=(MAX_CHUNKS << 20) + 1), "chunks"),
        (file(chunks="x"), "not a mapping"),
        (file(chunks={"size": 1 << 20}), "sha256"),
        (file(chunks={"size": 1 << 15, "sha256": DIGEST}), "power of two"),
        (file(chunks={"size": 1 << 27, "sha256": DIGEST}), "power of two"),
        (file(chunks={"size": 3 << 19, "sha256": DIGEST}), "power of two"),
        (file(chunks={"size": 0, "sha256": DIGEST}), "power of two"),
    ],
)
def test_a_file_that_breaks_a_rule_refuses_the_whole_manifest(entry: object, rule: str) -> None:
    with pytest.raises(MalformedError, match=rule) as refusal:
        parse(tree(file(path="other"), entry))
    assert str(refusal.value).isprintable()


PLACEHOLDERS = (
    None,
    "",
    "placeholder-sha256-checksum",
    "ab",
    "0" * 64,
    hashlib.sha256().hexdigest(),
    ["a"],
)


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
def test_a_placeholder_is_no_sha256(placeholder: object) -> None:
    """The package vouches for the file if its own sha256 is one, else nothing does."""
    document = tree(file(sha256=placeholder), file(path="empty", size=0, sha256=placeholder))
    found = parse(document).file("a")
    assert found is not None
    assert (found.unverified, found.packed) == (True, None)
    assert found.proof == {"unverified": "no sha256"}
    assert parse(document).unverified == 1, "of an empty file there is nothing to verify"
    document["distribution"] = {"package": {"url": "p.axon", "size": 1, "sha256": DIGEST}}
    found = parse(document).file("a")
    assert found is not None
    assert (found.unverified, found.packed) == (False, DIGEST)
    document["distribution"]["package"]["sha256"] = placeholder
    assert parse(document).unverified == (0 if placeholder == PLACEHOLDERS[-2] else 1)


@pytest.mark.parametrize(
    ("count", "size", "fits"), [(256, 1 << 30, True), (257, 1 << 20, False), (2000, 9000, True)]
)
def test_files_without_a_sha256_are_bounded_by_what_they_take_in_memory(
    count: int, size: int, fits: bool
) -> None:
    document = tree(*(file(path=f"f{number}", size=size, sha256="") for number in range(count)))
    document["distribution"] = {"package": {"url": "p.axon", "size": 1, "sha256": DIGEST}}
    if fits:
        assert len(parse(document).files) == count
    else:
        with pytest.raises(MalformedError, match="too many files have no sha256"):
            parse(document)


def test_a_sha256_may_say_that_it_is_one() -> None:
    document = tree(file(sha256=f"SHA256:{DIGEST.upper()}"), file(path="b", sha256="sha256:TODO"))
    document["distribution"] = {"package": {"url": "p", "size": 1, "sha256": f"sha256:{DIGEST}"}}
    found = parse(document)
    assert [entry.proof for entry in found.files] == [{"sha256": DIGEST}, {"package": DIGEST}]


def test_what_nothing_vouches_for_is_of_its_registry_and_manifest_alone() -> None:
    raw = json.dumps(tree(file(sha256="?"), file(path="b", sha256="?"))).encode()
    other = raw.replace(b"llama", b"llamb")
    names = {
        entry.digest
        for document, base in ((raw, "http://a/"), (raw, "http://b/"), (other, "http://a/"))
        for entry in parse_manifest(document, base=base).files
    }
    assert len(names) == 6
    again = parse_manifest(raw, base="http://a")
    assert again.files[0].digest in names


@pytest.mark.parametrize(
    ("paths", "rule"),
    [
        (["a", "a"], "twice"),
        (["a", "a/b"], "a file and a directory"),
        (["a/b/c", "a/b", "x"], "a file and a directory"),
    ],
)
def test_paths_must_not_collide(paths: list[str], rule: str) -> None:
    with pytest.raises(MalformedError, match=rule):
        parse(tree(*map(file, paths)))


@pytest.mark.parametrize(
    "metadata",
    [
        {"name": ""},
        {"name": None},
        {"name": "a/../b"},
        {"namespace": "a/b"},
        {"version": "latest"},
        {"version": "1/2"},
        {"name": ["llama"]},
    ],
)
def test_a_manifest_must_name_a_spec(metadata: dict[str, object]) -> None:
    with pytest.raises(MalformedError, match="spec"):
        parse(tree(file(), **metadata))


@pytest.mark.parametrize(
    "expected", [Spec("nlp", "llama", "2"), Spec("x", "llama", "latest"), Spec("nlp", "x", "1.0.0")]
)
def test_the_manifest_of_another_version_is_refused(expected: Spec) -> None:
    with pytest.raises(MalformedError, match=r"nlp/llama@1\.0\.0, not of"):
        parse(tree(file()), expected)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"apiVersion": "v2"}, "apiVersion"),
        ({"kind": "Secret"}, "kind"),
        ({"metadata": None}, "metadata"),
        ({"spec": []}, "spec"),
        ({"spec": {"format": {"files": []}}}, "files"),
        ({"spec": {"format": {"files": {}}}}, "files"),
    ],
)
def test_the_frame_must_be_there(change: dict[str, object], rule: str) -> None:
    with pytest.raises(MalformedError, match=rule):
        parse({**tree(file()), **change})


def test_more_files_than_the_limit_are_refused() -> None:
    entry = f"{{path: a, size: 1, sha256: {DIGEST}}}"
    text = "apiVersion: v1\nmetadata: {namespace: a, name: b, version: 1}\n"
    text += f"spec: {{format: {{files: [{','.join([entry] * (MAX_FILES + 1))}]}}}}"
    with pytest.raises(MalformedError, match="files"):
        parse_manifest(text.encode())


def test_ten_thousand_files_take_about_a_second() -> None:
    files = tuple(
        FileEntry(f"d/{number:05}", number, DIGEST, ChunkRef(1 << 20, DIGEST) if number else None)
        for number in range(10_000)
    )
    raw = render_manifest(Manifest(SPEC, files))
    begin = time.process_time()
    assert parse_manifest(raw).files == files
    assert time.process_time() - begin < 3  # 0.6 s on a quiet core


def test_what_nobody_would_accept_is_not_rendered() -> None:
    with pytest.raises(MalformedError, match="twice"):
        render_manifest(Manifest(SPEC, (FileEntry("a", 1, DIGEST), FileEntry("a", 1, DIGEST))))
