"""Versions that a registry removes or yanks, what it counts, and what `gc` frees."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.errors import AccessDeniedError, AxonError
from axonfs.formats.layout import INDEX, MODELS, manifest_key, object_key, table_key, versions_key
from axonfs.formats.listing import parse_index, parse_versions, parse_yanked, render_index
from axonfs.formats.manifest import Manifest, parse_manifest
from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.publish.registry import Registry
from axonfs.registries import collect
from axonfs.storage import Content, Directory, Listed, S3Storage
from tests.support.commands import Run
from tests.support.registry import RegistryServer, published

OLD, NEW = "nlp/tiny@1.0.0", "nlp/tiny@2.0.0"
SIZES = {"a.bin": 3000, "b.bin": 50}


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Two versions, which share config.json."""
    published(tmp_path, SIZES, spec=OLD)
    return published(tmp_path, SIZES, spec=NEW, seed=1)


def manifest(registry: Path, spec: str) -> Manifest:
    parsed = parse_spec(spec)
    return parse_manifest((registry / manifest_key(parsed)).read_bytes(), parsed)


def listed(registry: Path) -> list[str]:
    return [str(one.spec) for one in parse_index((registry / INDEX).read_bytes())[0]]


def latest(registry: Path) -> str | None:
    return parse_versions((registry / versions_key("nlp/tiny")).read_bytes()).latest


def age(registry: Path, seconds: float = 25 * 3600) -> None:
    """Make every file of the registry that old."""
    then = time.time() - seconds
    for path in registry.rglob("*"):
        os.utime(path, (then, then))


def contents(registry: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(registry)): path.read_bytes()
        for path in registry.rglob("*")
        if path.is_file()
    }


def test_a_yanked_version_is_found_by_its_name_alone(run: Run, registry: Path) -> None:
    assert run("registry", "yank", NEW, "--from", registry).out == f"{NEW} is yanked\n"
    assert run("registry", "yank", NEW, "--from", registry).out == f"{NEW} was already yanked\n"
    assert listed(registry) == [OLD]
    assert latest(registry) == "1.0.0"
    with RegistryServer(registry) as server:
        run("registry", "add", server.url)
        assert [item["spec"] for item in json.loads(run("search", "tiny", "--json").out)] == [OLD]
        assert json.loads(run("info", "nlp/tiny", "--json").out)["spec"] == OLD
        assert run("pin", NEW).code == 0, "its exact name is enough"
        for constraint in ("nlp/tiny", "nlp/tiny@>=1"):
            found = json.loads(run("info", constraint, "--json").out)
            assert found["spec"] == OLD, "though the yanked version is local"


def test_a_yank_outlives_other_publishers_and_damaged_lists(
    run: Run, registry: Path, tmp_path: Path
) -> None:
    run("registry", "yank", NEW, "--from", registry)
    published(tmp_path, SIZES, spec="nlp/tiny@1.5.0", seed=2)
    assert latest(registry) == "1.5.0"
    (registry / INDEX).write_bytes(b"{")
    (registry / versions_key("nlp/tiny")).write_bytes(b"{")
    published(tmp_path, SIZES, spec="nlp/other@1.0.0", seed=3)
    published(tmp_path, SIZES, spec="nlp/tiny@1.6.0", seed=4)
    assert latest(registry) == "1.6.0"
    assert parse_yanked((registry / INDEX).read_bytes()) == {parse_spec(NEW)}
    assert NEW not in listed(registry)
    assert run("registry", "check", registry).code == 0


def test_a_yank_is_undone(run: Run, registry: Path) -> None:
    before = contents(registry)
    run("registry", "yank", NEW, "--from", registry)
    done = run("registry", "yank", NEW, "--from", registry, "--undo")
    assert done.out == f"{NEW} is no longer yanked\n"
    assert contents(registry) == before


def test_a_removed_version_is_gone_and_gc_frees_it(run: Run, registry: Path) -> None:
    new, old = manifest(registry, NEW), manifest(registry, OLD)
    age(registry)
    done = run("registry", "remove-version", NEW, "--from", registry, "--yes")
    assert done.out.startswith(f"removed: {NEW}, 3 files of 3.0 KiB; no other version has 3.0 KiB")
    assert (listed(registry), latest(registry)) == ([OLD], "1.0.0")
    before = contents(registry)
    planned = run("registry", "gc", registry, "--dry-run")
    assert planned.out == (
        "3.1 KiB would be freed, 2 objects and 2 chunk tables would be removed\n"
    )
    assert contents(registry) == before
    stats = json.loads(run("registry", "stats", registry, "--json").out)
    assert (stats["unnamed"], stats["versions"], stats["objects"]) == (4, 1, 3)
    assert run("registry", "gc", registry).out.startswith("3.1 KiB freed, 2 objects")
    for file in ("a.bin", "b.bin"):
        entry = new.file(file)
        assert entry is not None
        assert not (registry / object_key(entry.digest)).exists()
        assert not (registry / table_key(entry.digest)).exists()
    assert old.file("config.json") == new.file("config.json"), "which both have, and one keeps"
    assert run("registry", "check", registry).code == 0


def test_what_was_written_lately_stays(run: Run, registry: Path) -> None:
    run("registry", "remove-version", NEW, "--from", registry, "--yes")
    before = contents(registry)
    done = run("registry", "gc", registry)
    assert done.out.startswith("0 B freed")
    assert "4 files kept: written less than a day ago" in done.err
    assert contents(registry) == before


def test_nothing_is_removed_unasked(run: Run, registry: Path) -> None:
    before = contents(registry)
    refused = run("registry", "remove-version", NEW, "--from", registry)
    assert (refused.code, refused.out) == (2, "")
    assert "add --yes" in refused.err
    dry = run("registry", "remove-version", NEW, "--from", registry, "--dry-run")
    assert dry.out.startswith(f"would be removed: {NEW}, 3 files")
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "axonfs", "registry", "remove-version", NEW]
    command += ["--from", str(registry)]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal) as it:
        os.write(main, b"n\n")
    os.close(main)
    os.close(terminal)
    assert it.returncode == 1
    assert contents(registry) == before
    for spec in ("nlp/tiny", "nlp/tiny@latest"):
        assert run("registry", "remove-version", spec, "--from", registry, "--yes").code == 2


def test_a_version_that_is_not_there(run: Run, registry: Path) -> None:
    before = contents(registry)
    for line in (["remove-version", "--yes"], ["yank"]):
        done = run("registry", *line, "nlp/tinny@1.0.0", "--from", registry)
        assert done.code == 1
        assert "nlp/tinny@1.0.0: the registry does not have this version" in done.err
    assert contents(registry) == before


def test_a_removal_that_was_interrupted_is_completed(run: Run, registry: Path) -> None:
    (registry / manifest_key(parse_spec(NEW))).unlink()
    assert run("registry", "remove-version", NEW, "--from", registry, "--yes").code == 1
    assert listed(registry) == [OLD]


def test_a_version_that_the_index_alone_names_is_removed_from_it(run: Run, registry: Path) -> None:
    """As one bit that a disk has changed in the index names it."""
    index = registry / INDEX
    index.write_bytes(index.read_bytes().replace(b'"nlp"', b'"olp"', 1))
    assert "olp/tiny@1.0.0: the index names this version" in run("registry", "check", registry).out
    command = ("registry", "remove-version", "olp/tiny@1.0.0", "--from", registry, "--yes")
    assert run(*command).code == 1
    assert "olp" not in index.read_text()


def test_gc_removes_nothing_beside_a_manifest_that_it_cannot_read(run: Run, registry: Path) -> None:
    (registry / manifest_key(parse_spec(NEW))).write_bytes(b"{")
    age(registry)
    before = contents(registry)
    done = run("registry", "gc", registry)
    assert done.code == 1
    assert f"{NEW}: the manifest is refused" in done.err
    assert contents(registry) == before


def test_gc_sees_a_version_that_was_published_meanwhile(registry: Path, tmp_path: Path) -> None:
    """Its manifest names an object that nothing named when gc began."""
    target = Registry(Directory(registry))
    collect.remove(target, parse_spec(NEW))
    age(registry)

    class Meanwhile(Directory):
        looks = 0

        def list(self, prefix: str) -> Iterator[Listed]:
            self.looks += prefix == MODELS
            if self.looks == 2:  # right before the first removal
                publish(tmp_path / "models/nlp/tiny/2.0.0", parse_spec("nlp/tiny@3.0.0"), registry)
            return super().list(prefix)

    assert collect.gc(Registry(Meanwhile(registry))).objects == 0


@pytest.mark.parametrize("what", ["object", "chunk table"])
def test_a_publisher_notices_that_gc_removed_what_it_named_just_now(
    registry: Path, tmp_path: Path, what: str
) -> None:
    """gc looked for manifests before the new one was there; so the version must not be, either.
    A chunk table may be found where the object is not, since gc removes the objects first."""
    entry = manifest(registry, NEW).file("a.bin")
    assert entry is not None
    gone = object_key(entry.digest)
    if what == "chunk table":
        (registry / gone).unlink()
        gone = table_key(entry.digest)
    collect.remove(Registry(Directory(registry)), parse_spec(NEW))

    class Late(Directory):
        def replace(self, key: str, body: bytes, before: Content | None) -> bool:
            if key.endswith("manifest.yaml"):
                self.delete(gone)
            return super().replace(key, body, before)

    again, model = parse_spec("nlp/tiny@3.0.0"), tmp_path / "models/nlp/tiny/2.0.0"
    with pytest.raises(AxonError, match=r"no longer has the object of 'a\.bin'"):
        publish(model, again, Late(registry))
    assert listed(registry) == [OLD]
    assert not (registry / manifest_key(again)).exists()
    assert not publish(model, again, registry).already


def test_gc_removes_nothing_where_it_may_not_read_or_list_manifests(registry: Path) -> None:
    """A store that refuses to read a file may say that there is none; lists may lag as well."""

    class Unreadable(Directory):
        def read(self, key: str, limit: int) -> Content | None:
            return None if key.endswith("manifest.yaml") else super().read(key, limit)

    class Unlisted(Directory):
        def list(self, prefix: str) -> Iterator[Listed]:
            if prefix.startswith(MODELS):
                raise AccessDeniedError("the store answered 403", source=self.name)
            return super().list(prefix)

    (registry / INDEX).write_bytes(render_index([]))
    age(registry)
    for storage, what in ((Unreadable(registry), "may not read it"), (Unlisted(registry), "403")):
        with pytest.raises(AccessDeniedError, match=what):
            collect.gc(Registry(storage))
    assert len(list((registry / "objects").rglob("*/??/*"))) == 5


def test_a_directory_that_cannot_be_read_is_a_fault_and_not_empty(
    run: Run, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (registry / INDEX).write_bytes(render_index([]))
    age(registry)
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("/nlp"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    before = len(list((registry / "objects").rglob("*")))
    done = run("registry", "gc", registry)
    assert done.code == 1
    assert f"{registry}/api/v1/models/nlp: Permission denied" in done.err
    monkeypatch.undo()
    assert len(list((registry / "objects").rglob("*"))) == before


def test_gc_removes_nothing_without_an_index(run: Run, registry: Path, tmp_path: Path) -> None:
    """Then this is no registry, or its manifests may be lost with the index."""
    age(registry)
    shutil.rmtree(registry / "api")
    before = contents(registry)
    for path in (registry, tmp_path / "typo"):
        done = run("registry", "gc", path)
        assert done.code == 1
        assert "the registry has no index.json, so nothing is removed" in done.err
    assert contents(registry) == before


def test_gc_knows_a_version_that_the_storage_does_not_list_yet(registry: Path) -> None:
    class Late(Directory):
        def list(self, prefix: str) -> Iterator[Listed]:
            return (one for one in super().list(prefix) if "2.0.0" not in one.key)

    age(registry)
    assert collect.gc(Registry(Late(registry))).objects == 0


def test_a_publisher_notices_that_gc_removed_what_it_found(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(registry)
    collect.remove(Registry(Directory(registry)), parse_spec(NEW))
    age(registry)
    described = Registry.object

    def gc_first(self: Registry, digest: str, size: int) -> bytes:
        collect.gc(Registry(Directory(registry)))
        return described(self, digest, size)

    monkeypatch.setattr(Registry, "object", gc_first)
    again, model = parse_spec("nlp/tiny@3.0.0"), tmp_path / "models/nlp/tiny/2.0.0"
    with pytest.raises(
        AxonError, match=r"no longer has the object of 'a\.bin' .*run the command again"
    ):
        publish(model, again, registry)
    publish(model, again, registry)
    assert manifest(registry, str(again)).file("a.bin") is not None


def test_a_bucket_is_collected(
    run: Run, bucket_url: str, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = S3Storage(bucket_url)
    for spec in (OLD, NEW):
        publish(tmp_path.joinpath("models", *parse_spec(spec).segments), parse_spec(spec), bucket)
    run("registry", "yank", OLD, "--from", bucket_url)
    assert json.loads(run("registry", "stats", bucket_url, "--json").out)["yanked"] == 1
    run("registry", "yank", OLD, "--from", bucket_url, "--undo")
    assert run("registry", "remove-version", NEW, "--from", bucket_url, "--yes").code == 0
    monkeypatch.setattr(collect, "MIN_AGE", -3600.0)
    assert run("registry", "gc", bucket_url).out.startswith("3.1 KiB freed, 2 objects")
    assert run("registry", "check", bucket_url).out == "1 version, 3 objects, 3.0 KiB: 0 faults\n"


def test_stats_of_a_registry_on_http(run: Run, registry: Path) -> None:
    with RegistryServer(registry) as server:
        done = run("registry", "stats", server.url)
        assert done.out.splitlines() == [
            "models:   1",
            "versions: 2",
            "files:    6, 6.1 KiB",
            "objects:  5, 6.0 KiB",
        ]
        refused = run("registry", "gc", server.url)
        assert refused.code == 2
        assert "this command does not work over HTTP" in refused.err
