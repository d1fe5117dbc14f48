"""`axonfs registry copy`: between all kinds of registries, interrupted, and refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from axonfs.errors import AxonError
from axonfs.formats.layout import INDEX, manifest_key, object_key
from axonfs.formats.listing import parse_index
from axonfs.formats.manifest import FileEntry, parse_manifest
from axonfs.names import Spec, parse_spec
from axonfs.publish import publish
from axonfs.publish.registry import Registry
from axonfs.registries import check, copy, readers
from axonfs.settings.settings import Settings
from axonfs.storage import Content, Directory
from tests.support.axon import AxonRegistry
from tests.support.commands import Run
from tests.support.faulty import reset_within, short, stall_before, status
from tests.support.faulty_origin import FaultyOrigin
from tests.support.registry import NoRangeServer, RegistryServer, make_model, published

OLD, NEW, OTHER = "nlp/tiny@1.0.0", "nlp/tiny@1.1.0", "cv/net@0.1"
SIZES = {"a.safetensors": (2 << 20) + 5, "b.txt": 70, "sub/empty.txt": 0}


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Three versions: two share a file, and one is yanked."""
    for seed, spec in enumerate((OLD, NEW, OTHER)):
        made = published(tmp_path, SIZES, spec=spec, seed=seed)
    Registry(Directory(made)).yank(parse_spec(NEW))
    return made


def files(registry: Path) -> dict[str, bytes]:
    """All files but the lock."""
    return {
        str(path.relative_to(registry)): path.read_bytes()
        for path in registry.rglob("*")
        if path.is_file() and path.name != ".axonfs.lock"
    }


def entry(registry: Path, path: str, spec: str = OLD) -> FileEntry:
    parsed = parse_spec(spec)
    found = parse_manifest((registry / manifest_key(parsed)).read_bytes(), parsed).file(path)
    assert found is not None
    return found


@pytest.mark.parametrize("server", [RegistryServer, NoRangeServer])
def test_a_site_is_mirrored(
    run: Run, registry: Path, tmp_path: Path, server: type[RegistryServer]
) -> None:
    """Byte for byte, with lists and yanks."""
    mirror = tmp_path / "mirror"
    with server(registry) as origin:
        done = run("registry", "copy", origin.url, mirror)
        assert done.out == "3 versions copied; 8 objects, 6.0 MiB new\n"
        assert files(mirror) == files(registry)
        sent = origin.bytes_sent
        again = run("registry", "copy", origin.url, mirror)
        assert again.out == "0 versions copied, 3 already there; 0 objects, 0 B new\n"
        assert origin.paths("/objects/") == list(dict.fromkeys(origin.paths("/objects/")))
        assert origin.bytes_sent - sent < 20_000, "manifests and lists alone"


def test_the_index_is_written_once_for_all(registry: Path, tmp_path: Path) -> None:
    """It has every version of the registry, so it may be large."""
    written: list[str] = []

    class Watched(Directory):
        def replace(self, key: str, body: bytes, before: Content | None) -> bool:
            written.append(key)
            return super().replace(key, body, before)

    with readers(Settings(), f"file://{registry}") as (reader,):
        specs = sorted(reader.specs())
        target = Registry(Watched(tmp_path / "mirror"))
        copy(reader, target, specs, copied=bool, failed=never)
    assert len(specs) == 3
    assert written.count(INDEX) == 1


def test_to_an_island_and_back(run: Run, registry: Path, tmp_path: Path, bucket_url: str) -> None:
    """Directory → bucket → directory: what an air-gapped site imports, and exports."""
    assert run("registry", "copy", registry, bucket_url).code == 0
    assert run("registry", "check", bucket_url).code == 0
    assert run("registry", "copy", bucket_url, tmp_path / "stick").code == 0
    assert files(tmp_path / "stick") == files(registry)


def test_lock_files_stay_valid(run: Run, registry: Path, tmp_path: Path) -> None:
    lock, mirror = tmp_path / "models.lock", tmp_path / "mirror"
    with RegistryServer(registry) as origin:
        run("registry", "add", origin.url)
        assert run("lock", lock, OLD, NEW).code == 0
        assert run("registry", "copy", origin.url, mirror, "nlp/tiny", NEW).code == 0
    elsewhere = ("--registry", mirror, "--cache", tmp_path / "cache of another machine")
    assert run("pin", "--lock", lock, *elsewhere).code == 0


def test_some_versions(run: Run, registry: Path, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    done = run("registry", "copy", registry, mirror, "nlp/tiny", "cv/net@^0.1", "--json")
    assert [item["spec"] for item in json.loads(done.out)["versions"]] == [OLD, OTHER]
    listed = parse_index((mirror / INDEX).read_bytes())[0]
    assert {str(one.spec) for one in listed} == {OLD, OTHER}
    missing = run("registry", "copy", registry, mirror, "nlp/tiny@9", "nlp/tiny@1.1.0")
    assert missing.code == 1
    assert "axonfs: nlp/tiny@9: the registry does not have this version" in missing.err
    assert missing.out.startswith("1 version copied"), "the others are copied"


def test_wrong_bytes_are_not_taken(run: Run, registry: Path, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    wrong = registry / object_key(entry(registry, "a.safetensors").digest)
    body = bytearray(wrong.read_bytes())
    body[1 << 20] ^= 1
    wrong.write_bytes(body)
    with RegistryServer(registry) as origin:
        done = run("registry", "copy", origin.url, mirror)
    assert done.code == 1
    assert f"{OLD} a.safetensors: chunk 1 of the object does not match" in done.err
    assert not (mirror / manifest_key(parse_spec(OLD))).exists()
    assert not (mirror / wrong.relative_to(registry)).exists()
    assert run("registry", "check", mirror).code == 0


def test_an_interrupted_copy_goes_on(registry: Path, tmp_path: Path) -> None:
    target = Registry(Directory(tmp_path / "mirror"))
    specs = [parse_spec(OLD)]
    stored = tmp_path / "mirror/objects/sha256"

    def interrupt(spec: Spec, done: int, total: int) -> None:
        if done == total:
            deadline = time.monotonic() + 30
            while not any(stored.glob("*/*")):  # the other objects are complete
                assert time.monotonic() < deadline
                time.sleep(0.01)
            raise KeyboardInterrupt

    with RegistryServer(registry) as origin, readers(Settings(), origin.url) as (reader,):
        with pytest.raises(KeyboardInterrupt):
            copy(reader, target, specs, copied=bool, failed=never, progress=interrupt)
        assert target.manifest(specs[0]) is None
        copy(reader, target, specs, copied=bool, failed=never)
        asked = origin.paths("/objects/")
        assert len(asked) < 2 * len(set(asked)), "an object that had come is not sent again"
    with readers(Settings(), f"file://{tmp_path}/mirror") as (written,):
        assert check(written, target).faults == ()


def test_a_file_goes_on_where_its_connection_broke(
    run: Run, registry: Path, tmp_path: Path
) -> None:
    mirror, key = tmp_path / "mirror", object_key(entry(registry, "a.safetensors").digest)
    with FaultyOrigin(registry) as origin:
        origin.plan(reset_within, short, status(503), of=key)
        assert run("registry", "copy", origin.url, mirror, OLD).code == 0
        asked = [seen.headers.get("range") for seen in origin.requests if key in seen.path]
    assert len(asked) == 4
    assert asked[-1] != asked[0], "what had come is not requested again"
    assert run("registry", "check", mirror).code == 0


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("part", ["objects/", "chunks/"])
def test_ctrl_c_ends_a_copy_at_once(registry: Path, tmp_path: Path, part: str) -> None:
    """Also from a registry that is silent."""
    with FaultyOrigin(registry) as origin:
        origin.plan(*[stall_before] * 20, of=part)
        command = [sys.executable, "-m", "axonfs", "registry", "copy", origin.url]
        process = subprocess.Popen(
            [*command, tmp_path / "mirror"], stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )
        deadline = time.monotonic() + 30
        while not any(part in seen.path for seen in origin.requests):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert b"interrupted after 0 versions copied" in err
    assert b"run the same command again to resume" in err
    assert b"Traceback" not in err
    assert out == b""


def never(error: AxonError) -> None:
    raise error


class DeathError(Exception):
    """The program dies before a write."""


class Dying(Directory):
    """Dies before write number `left`."""

    def __init__(self, root: Path, left: int) -> None:
        super().__init__(root)
        self.left = left

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise DeathError

    @contextmanager
    def upload(self, *args: Any) -> Iterator[Any]:
        with super().upload(*args) as new:
            self._count()
            yield new

    def put(self, key: str, body: bytes) -> bool:
        self._count()
        return super().put(key, body)

    def replace(self, key: str, body: bytes, before: Content | None) -> bool:
        self._count()
        return super().replace(key, body, before)


def test_killed_before_each_of_its_writes(tmp_path: Path) -> None:
    """No list names a version that is not whole, and the next copy completes it."""
    for spec in (OLD, NEW):
        registry = published(tmp_path, {"a.bin": 70_000, "b.bin": 5}, spec=spec)
    Registry(Directory(registry)).yank(parse_spec(NEW))
    for number in range(100):
        mirror = tmp_path / f"mirror{number}"
        target = Registry(Directory(mirror))
        with readers(Settings(), f"file://{registry}", f"file://{mirror}") as (reader, written):
            specs = [parse_spec(OLD), parse_spec(NEW)]
            try:
                copy(reader, Registry(Dying(mirror, number)), specs, copied=bool, failed=never)
                break
            except DeathError:
                pass
            assert target.specs().get(parse_spec(NEW), True), "what is yanked is so from the start"
            if (mirror / INDEX).exists():
                assert {fault.error.what[:10] for fault in check(written).faults} == set()
            copy(reader, target, specs, copied=bool, failed=never)
            assert check(written, target).faults == ()
    assert number > 8


def test_another_version_of_that_name_is_kept(run: Run, registry: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    publish(make_model(tmp_path / "x", {"x": 5}), parse_spec(OLD), other)
    before = files(other)
    done = run("registry", "copy", registry, other, OLD)
    assert done.code == 1
    assert f"{OLD}: this version is there with another manifest" in done.err
    assert files(other) == before


def test_another_chunk_table_is_kept(run: Run, registry: Path, tmp_path: Path) -> None:
    """A table has the name of its object, and the versions that are there need theirs."""
    other = tmp_path / "other"
    model = tmp_path.joinpath("models", *parse_spec(OLD).segments)
    publish(model, parse_spec("nlp/same@1.0.0"), other, chunk_size=64 << 10)
    before = files(other)
    done = run("registry", "copy", registry, other, OLD)
    assert done.code == 1
    assert "the object is there with another chunk table (of 65,536 bytes)" in done.err
    assert files(other) == before


def test_what_cannot_be_copied(
    run: Run, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AXONFS_RETRIES", "0")
    refused = run("registry", "copy", registry, "http://127.0.0.1:9")
    assert refused.code == 1
    assert "Connection refused" in refused.err
    down = run("registry", "copy", "http://127.0.0.1:9", tmp_path / "mirror")
    assert down.code == 1
    assert "Connection refused" in down.err
    axon = AxonRegistry(tmp_path / "axon")
    axon.add("vision/net@1.0.0", {"w.bin": b"w"})
    with axon as server:
        done = run("registry", "copy", server.url, tmp_path / "mirror")
        assert done.code == 1
        assert "the registry has no index.json" in done.err


def test_a_full_disk_ends_it(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not once for each version."""
    failures: list[AxonError] = []

    class Full(Directory):
        def put(self, key: str, body: bytes) -> bool:
            raise OSError(28, "No space left on device", str(self.root))

    with readers(Settings(), f"file://{registry}") as (reader,), pytest.raises(OSError, match="28"):
        copy(
            reader,
            Registry(Full(tmp_path / "mirror")),
            sorted(reader.specs()),
            copied=bool,
            failed=failures.append,
        )
    assert failures == []
