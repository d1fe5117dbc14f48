"""Publishing real directories: the layout, what is kept, what is mended."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from axonfs.errors import BusyError
from axonfs.formats.chunktable import parse_table
from axonfs.formats.layout import manifest_key, object_key
from axonfs.formats.listing import parse_index, parse_versions
from axonfs.formats.manifest import Manifest, parse_manifest
from axonfs.names import Spec, parse_spec
from axonfs.publish import Published, PublishProgress, publish
from axonfs.storage.files import locked
from tests.integration.publish.conftest import CHUNK, SPEC, contents
from tests.support.registry import at_once, make_model


def manifest_of(registry: Path, spec: Spec = SPEC) -> Manifest:
    path = registry.joinpath("api/v1/models", *spec.segments, "manifest.yaml")
    return parse_manifest(path.read_bytes(), spec)


def indexed(registry: Path) -> list[str]:
    listings, skipped = parse_index((registry / "api/v1/index.json").read_bytes())
    assert skipped == 0
    return [str(listing.spec) for listing in listings]


def blob(registry: Path, kind: str, digest: str) -> bytes:
    return (registry / kind / "sha256" / digest[:2] / digest).read_bytes()


def check_bytes(registry: Path, model: Path, spec: Spec = SPEC) -> None:
    """Every link from the manifest to every chunk, against the files themselves."""
    for entry in manifest_of(registry, spec).files:
        data = (model / entry.path).read_bytes()
        assert blob(registry, "objects", entry.digest) == data
        assert hashlib.sha256(data).hexdigest() == entry.digest
        if not data:
            assert entry.chunks is None
            continue
        assert entry.chunks is not None
        raw = blob(registry, "chunks", entry.digest)
        table = parse_table(raw, size=len(data), chunks=entry.chunks)
        size = table.chunk_size
        for chunk in range(table.count):
            piece = data[chunk * size : (chunk + 1) * size]
            assert table.right(chunk, memoryview(piece))


def test_a_published_directory_is_complete_to_the_last_chunk(model: Path, registry: Path) -> None:
    done = publish(model, SPEC, registry, chunk_size=CHUNK)
    check_bytes(registry, model)
    files = [path for path in model.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    assert done == Published(SPEC, len(files), size, size, already=False)
    assert indexed(registry) == [str(SPEC)]
    versions = registry / "api/v1/models/nlp/tiny/versions.json"
    assert parse_versions(versions.read_bytes()).latest == "1.0.0"
    assert list((registry / "objects/tmp").iterdir()) == []


def test_a_chunk_larger_than_the_copy_buffer_is_digested_right(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", {"a": (5 << 20) + 3, "b": 4 << 20})
    publish(model, SPEC, tmp_path / "registry", chunk_size=4 << 20)
    check_bytes(tmp_path / "registry", model)


def test_another_user_may_read_what_was_published(model: Path, registry: Path) -> None:
    umask = os.umask(0o022)
    try:
        publish(model, SPEC, registry)
    finally:
        os.umask(umask)
    for path in registry.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o755 if path.is_dir() else 0o644), path


def test_publishing_the_same_bytes_again_changes_nothing(model: Path, registry: Path) -> None:
    publish(model, SPEC, registry, chunk_size=CHUNK)
    before = contents(registry)
    done = publish(model, SPEC, registry, description="other words", chunk_size=4 * CHUNK)
    assert (done.already, done.new_bytes) == (True, 0)
    assert contents(registry) == before


def test_a_file_in_two_versions_is_stored_once(model: Path, registry: Path) -> None:
    publish(model, SPEC, registry)
    (model / "new.txt").write_bytes(b"hello")
    done = publish(model, parse_spec("nlp/tiny@1.1.0"), registry)
    assert done.new_bytes == 5
    assert len(list(registry.glob("objects/sha256/*/*"))) == 5


def test_two_chunk_sizes_share_one_table(model: Path, registry: Path) -> None:
    """The table's name is its object's, so the first one stays and both manifests name it."""
    publish(model, SPEC, registry, chunk_size=CHUNK)
    later = parse_spec("nlp/tiny@1.1.0")
    publish(model, later, registry, chunk_size=4 * CHUNK)
    check_bytes(registry, model)
    check_bytes(registry, model, later)
    assert manifest_of(registry, later).files == manifest_of(registry).files


@pytest.mark.parametrize("lost", ["objects", "chunks", "api/v1/index.json", "versions.json"])
def test_publishing_again_mends_what_is_missing(model: Path, registry: Path, lost: str) -> None:
    publish(model, SPEC, registry, chunk_size=CHUNK)
    before = contents(registry)
    path = registry / "api/v1/models/nlp/tiny" / lost if "versions" in lost else registry / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert publish(model, SPEC, registry, chunk_size=4 * CHUNK).already
    assert contents(registry) == before


@pytest.mark.parametrize("damage", [b"", b"{", b'{"apiVersion": "axonfs/v1", "models": []}'])
def test_a_damaged_index_is_made_anew(model: Path, registry: Path, damage: bytes) -> None:
    other = parse_spec("audio/deep/name@2.0")
    publish(model, other, registry)
    publish(model, SPEC, registry)
    (registry / "api/v1/index.json").write_bytes(damage)
    publish(model, SPEC, registry)
    publish(model, other, registry)
    assert indexed(registry) == [str(other), str(SPEC)]


def test_latest_is_the_newest_release(model: Path, registry: Path) -> None:
    for version in ("1.10.0", "1.9.0", "2.0.0-rc.1"):
        publish(model, parse_spec(f"nlp/tiny@{version}"), registry)
    versions = parse_versions((registry / "api/v1/models/nlp/tiny/versions.json").read_bytes())
    assert versions.versions == ("1.9.0", "1.10.0", "2.0.0-rc.1")
    assert versions.latest == "1.10.0"
    assert indexed(registry) == [f"nlp/tiny@{version}" for version in versions.versions]


def test_hidden_names_and_the_manifest_are_left_out(model: Path, registry: Path) -> None:
    (model / ".git/objects").mkdir(parents=True)
    (model / ".git/objects/x").write_bytes(b"x")
    (model / "sub/.hidden").write_bytes(b"x")
    (model / "manifest.yaml").write_bytes(b"x")
    (model / "sub/manifest.yaml").write_bytes(b"mine")
    done = publish(model, SPEC, registry)
    assert done.left_out == (".git/", "manifest.yaml", "sub/.hidden")
    assert [entry.path for entry in manifest_of(registry).files] == [
        "a.safetensors",
        "b.safetensors",
        "config.json",
        "sub/empty.txt",
        "sub/manifest.yaml",
    ]


def test_a_hugging_face_snapshot_is_followed(tmp_path: Path, registry: Path) -> None:
    blobs = make_model(tmp_path / "cache/blobs", {"1234": 5000})
    snapshot = tmp_path / "cache/snapshots/main"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../blobs/1234")
    (snapshot / "config.json").symlink_to(blobs / "config.json")
    (tmp_path / "link").symlink_to(snapshot)
    publish(tmp_path / "link", SPEC, registry)
    check_bytes(registry, snapshot)


def test_links_to_directories_inside_are_followed(model: Path, registry: Path) -> None:
    (model / "sub/data").write_bytes(b"data")
    (model / "again").symlink_to("sub")
    publish(model, SPEC, registry)
    entry = manifest_of(registry).file("again/data")
    assert entry is not None
    assert entry.size == 4


def test_progress_comes_to_the_end(model: Path, registry: Path) -> None:
    steps: list[PublishProgress] = []
    done = publish(model, SPEC, registry, chunk_size=CHUNK, progress=steps.append)
    assert [step.bytes_done for step in steps] == sorted(step.bytes_done for step in steps)
    last = steps[-1]
    assert (last.bytes_done, last.bytes) == (done.bytes, done.bytes)


README = """---
license: other
license_name: llama2
library_name: sentence-transformers
pipeline_tag: text-generation
tags: [facebook, llama]
---
intro
# The Model #
"""


def test_metadata_comes_from_the_readme_and_the_config(model: Path, registry: Path) -> None:
    (model / "README.md").write_text(README)
    publish(model, SPEC, registry, tags=["mine", "llama"])
    manifest = manifest_of(registry)
    assert manifest.description == "The Model"
    assert (manifest.license, manifest.framework) == ("llama2", "sentence-transformers")
    assert manifest.format == "safetensors"
    assert manifest.tags == ("mine", "llama", "facebook", "text-generation", "LlamaForCausalLM")
    listing = parse_index((registry / "api/v1/index.json").read_bytes())[0][0]
    assert listing.description == "The Model"
    assert listing.published == manifest.created > 0


def test_options_win_over_files(model: Path, registry: Path) -> None:
    (model / "README.md").write_text(README)
    publish(model, SPEC, registry, description="mine", license="MIT", framework="jax")
    manifest = manifest_of(registry)
    assert (manifest.description, manifest.license, manifest.framework) == ("mine", "MIT", "jax")


def test_a_lock_that_is_never_let_go_ends_the_wait(
    model: Path, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a publisher that is stopped, or a machine that is gone, may hold it."""
    monkeypatch.setattr("axonfs.storage.files.LOCK_TIMEOUT", 0.2)
    registry.mkdir()
    with locked(registry / ".axonfs.lock"), pytest.raises(BusyError) as caught:
        publish(model, parse_spec("nlp/tiny@1.0.0"), registry)
    assert "nlp/tiny@1.0.0: another publisher has held the registry's lock" in str(caught.value)
    assert str(registry / ".axonfs.lock") in str(caught.value)
    assert not publish(model, parse_spec("nlp/tiny@1.0.0"), registry).already


def test_eight_publishers_at_once_lose_nothing(model: Path, registry: Path) -> None:
    specs = [parse_spec(f"nlp/m{number % 3}@1.{number}") for number in range(8)]
    at_once(lambda spec: publish(model, spec, registry, chunk_size=CHUNK), specs)
    assert sorted(indexed(registry)) == sorted(map(str, specs))
    assert len(list(registry.glob("objects/sha256/*/*"))) == 4
    assert list((registry / "objects/tmp").iterdir()) == []
    document = json.loads((registry / "api/v1/models/nlp/m0/versions.json").read_bytes())
    assert document == {"versions": ["1.0", "1.3", "1.6"], "latest": "1.6"}
    for spec in specs:
        check_bytes(registry, model, spec)


def test_the_manifest_of_the_version_is_kept(model: Path, registry: Path, tmp_path: Path) -> None:
    """If the directory is one from a mount, and nothing in it changed."""
    publish(model, SPEC, registry, description="a model", chunk_size=CHUNK)
    own = (registry / manifest_key(SPEC)).read_bytes()
    (model / "manifest.yaml").write_bytes(own)
    done = publish(model, SPEC, tmp_path / "second")
    assert done.left_out == ()
    assert (tmp_path / "second" / manifest_key(SPEC)).read_bytes() == own
    publish(model, SPEC, tmp_path / "described", description="another")
    assert b"another" in (tmp_path / "described" / manifest_key(SPEC)).read_bytes()
    other = parse_spec("nlp/tiny@2.0.0")
    assert publish(model, other, registry).left_out == ("manifest.yaml",)
    changed = model / "a.safetensors"
    changed.write_bytes(changed.read_bytes()[::-1])
    assert publish(model, SPEC, tmp_path / "changed").left_out == ("manifest.yaml",)
    entry = parse_manifest((tmp_path / "changed" / manifest_key(SPEC)).read_bytes()).file(
        "a.safetensors"
    )
    assert entry is not None
    body = (tmp_path / "changed" / object_key(entry.digest)).read_bytes()
    assert body == changed.read_bytes()
