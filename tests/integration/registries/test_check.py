"""`axonfs registry check`: what is wrong in a registry, and what another one repairs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from axonfs.errors import UnavailableError
from axonfs.formats.layout import INDEX, manifest_key, object_key, table_key, versions_key
from axonfs.formats.manifest import FileEntry, parse_manifest
from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.sources.blob import Blob
from axonfs.storage import S3Storage
from tests.support.commands import Run
from tests.support.registry import SPEC, RegistryServer, published

SIZES = {"a.safetensors": (2 << 20) + 5, "b.txt": 70}


def entry(registry: Path, path: str, spec: str = SPEC) -> FileEntry:
    parsed = parse_spec(spec)
    found = parse_manifest((registry / manifest_key(parsed)).read_bytes(), parsed).file(path)
    assert found is not None
    return found


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return published(tmp_path, SIZES)


@pytest.fixture
def other(registry: Path, tmp_path: Path) -> Path:
    """A copy of the registry from before it was damaged."""
    return shutil.copytree(registry, tmp_path / "other")


def flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)


def damage(registry: Path) -> list[str]:
    """Damage each kind of file; return a part of each line that tells of it."""
    weights, text = entry(registry, "a.safetensors"), entry(registry, "b.txt")
    flip(registry / object_key(weights.digest))
    (registry / object_key(text.digest)).unlink()
    flip(registry / table_key(text.digest))
    (registry / INDEX).unlink()
    return [
        f"{SPEC} a.safetensors: chunk 2 of the object does not match the chunk table",
        f"{SPEC} b.txt: the registry does not have the object",
        f"{SPEC} b.txt: the chunk table does not match the digest in the manifest",
        "the registry has no index.json",
    ]


def test_a_sound_registry_has_no_fault(run: Run, registry: Path) -> None:
    done = run("registry", "check", registry)
    assert (done.code, done.err) == (0, "")
    assert done.out == "1 version, 3 objects, 2.0 MiB: 0 faults\n"


def test_every_fault_is_one_line_and_is_repaired(run: Run, registry: Path, other: Path) -> None:
    expected = damage(registry)
    done = run("registry", "check", registry)
    assert done.code == 1
    *lines, last = done.out.splitlines()
    assert last == "1 version, 3 objects, 2.0 MiB: 5 faults"
    assert len(lines) == 5, "the version is not in the index, either"
    for what in expected:
        assert any(line.startswith(what) for line in lines), (what, lines)
    with RegistryServer(other) as server:
        repaired = run("registry", "check", registry, "--repair", server.url)
    assert repaired.code == 0
    assert repaired.out.count(" - repaired\n") == 5
    assert run("registry", "check", registry).code == 0
    for path in other.rglob("*"):
        if path.is_file() and path.name != ".axonfs.lock":
            assert (registry / path.relative_to(other)).read_bytes() == path.read_bytes()


def test_what_the_other_registry_has_wrong_is_not_taken(
    run: Run, registry: Path, other: Path
) -> None:
    key = object_key(entry(registry, "a.safetensors").digest)
    (registry / key).unlink()
    flip(other / key)
    done = run("registry", "check", registry, "--repair", other)
    assert done.code == 1
    assert " - not repaired: chunk 2 of the object does not match" in done.out
    assert not (registry / key).exists()


def test_what_cannot_be_read_is_a_fault_like_others(
    run: Run, registry: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that loops, a directory in an object's place, and a sector that the disk has lost."""
    loop, place, sector = (
        registry / object_key(entry(registry, path).digest)
        for path in ("a.safetensors", "b.txt", "config.json")
    )
    for path in (loop, place):
        path.unlink()
    loop.symlink_to(loop.name)
    place.mkdir()
    read = Blob.read

    def lost(self: Blob, *args: Any, **options: Any) -> None:
        if self.path == sector:
            raise UnavailableError("the file can no longer be read: Input/output error")
        read(self, *args, **options)

    monkeypatch.setattr(Blob, "read", lost)
    done = run("registry", "check", registry, "--repair", other)
    assert done.code == 1
    assert "a.safetensors: the object cannot be read: Too many levels of symbolic" in done.out
    assert "config.json: the object cannot be read: the file can no longer be read: In" in done.out
    assert done.out.count(" - repaired\n") == 2
    (line,) = [line for line in done.out.splitlines() if "b.txt" in line]
    assert "Is a directory" in line.partition(" - not repaired: ")[2]


def test_a_manifest_that_cannot_be_read_is_a_fault_of_its_version(
    run: Run, registry: Path, tmp_path: Path
) -> None:
    """The others are checked and copied."""
    published(tmp_path, SIZES, spec="nlp/tiny@2.0.0", seed=1)
    path = registry / manifest_key(parse_spec(SPEC))
    path.unlink()
    path.symlink_to(path.name)
    done = run("registry", "check", registry)
    assert f"{SPEC}: the file cannot be read: Too many levels of symbolic links" in done.out
    assert "2 versions, 3 objects, 2.0 MiB: 1 fault" in done.out
    copied = run("registry", "copy", registry, tmp_path / "mirror")
    assert (copied.code, copied.out) == (1, "1 version copied; 3 objects, 2.0 MiB new\n")
    assert f"{SPEC}: the file cannot be read" in copied.err
    assert f"unreadable: {SPEC}" in run("registry", "stats", registry).out


def test_a_manifest_is_repaired_and_then_its_files(run: Run, registry: Path, other: Path) -> None:
    manifest = registry / manifest_key(parse_spec(SPEC))
    (registry / object_key(entry(registry, "b.txt").digest)).unlink()
    manifest.write_bytes(b"apiVersion: [")
    done = run("registry", "check", registry, "--json")
    assert done.code == 1
    (fault,) = json.loads(done.out)["faults"]
    assert (fault["spec"], fault["repaired"]) == (SPEC, False)
    assert fault["message"].startswith("the manifest is refused")
    assert run("registry", "check", registry, "--repair", other).out.count(" - repaired\n") == 2
    assert run("registry", "check", registry).code == 0


def test_lists_that_lag_are_faults(run: Run, registry: Path, other: Path) -> None:
    """As a publisher leaves them that died before it wrote them."""
    before = [(registry / key).read_bytes() for key in (INDEX, versions_key("nlp/tiny"))]
    published(registry.parent, SIZES, spec="nlp/tiny@2.0.0")
    (registry / INDEX).write_bytes(before[0])
    (registry / versions_key("nlp/tiny")).write_bytes(before[1])
    done = run("registry", "check", registry)
    assert f"nlp/tiny@2.0.0: {INDEX} does not say of it" in done.out
    assert f"nlp/tiny: {versions_key('nlp/tiny')} does not say of it" in done.out
    assert run("registry", "check", registry, "--repair", other).code == 0
    assert "2 versions" in run("registry", "check", registry).out


def test_a_registry_on_http_is_checked_and_not_repaired(
    run: Run, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AXONFS_RETRIES", "0")
    (registry / object_key(entry(registry, "b.txt").digest)).unlink()
    with RegistryServer(registry) as server:
        done = run("registry", "check", server.url)
        assert done.code == 1
        assert f"{SPEC} b.txt: " in done.out
        assert "3 objects" in done.out
        refused = run("registry", "check", server.url, "--repair", registry)
        assert refused.code == 2
        assert "this command does not work over HTTP" in refused.err
    down = run("registry", "check", server.url)
    assert down.code == 1
    assert "Connection refused" in down.err


def test_a_bucket_is_checked_and_repaired(
    run: Run, registry: Path, bucket_url: str, tmp_path: Path
) -> None:
    bucket = S3Storage(bucket_url)
    publish(tmp_path / "models/nlp/tiny/1.0.0", parse_spec(SPEC), bucket)
    assert run("registry", "check", bucket_url).code == 0
    weights, text = entry(registry, "a.safetensors"), entry(registry, "b.txt")
    bucket.delete(object_key(weights.digest))
    bucket.delete(table_key(text.digest))
    assert run("registry", "check", bucket_url).out.count(SPEC) == 2
    assert run("registry", "check", bucket_url, "--repair", registry).code == 0
    assert run("registry", "check", bucket_url).code == 0
