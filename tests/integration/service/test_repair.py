"""`verify --repair` on every state that an object can be in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from axonfs.names import parse_spec
from axonfs.store import Store
from tests.support.commands import Run
from tests.support.fetching import without_tables
from tests.support.registry import SPEC, RegistryServer, published
from tests.support.stores import backing_file

CHUNK = 1 << 16
SIZES = {"a.bin": 12 * CHUNK + 5, "b.bin": 6 * CHUNK}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    with RegistryServer(published(tmp_path, SIZES, chunk_size=CHUNK)) as server:
        yield server


@pytest.fixture
def cached(run: Run, registry: RegistryServer, tmp_path: Path) -> Path:
    """A cache with the whole version, pinned."""
    run("registry", "add", registry.url)
    assert run("pin", SPEC).code == 0
    return tmp_path / "cache"


def entry_of(cache: Path, path: str) -> Any:
    with closing(Store.open(cache)) as store:
        stored = store.manifest(parse_spec(SPEC))
        assert stored is not None
        return stored.manifest.file(path)


def spoil(cache: Path, path: str, offset: int) -> Path:
    file_path = backing_file(cache, entry_of(cache, path).digest)
    with file_path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x40]))
    return file_path


def plain(tmp_path: Path, path: str) -> bytes:
    return (tmp_path / "models/nlp/tiny/1.0.0" / path).read_bytes()


def test_complete_and_pinned(
    run: Run, cached: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    file = spoil(cached, "a.bin", 3 * CHUNK)
    sent = registry.bytes_sent
    done = run("verify", "--repair")
    assert (done.code, done.out.splitlines()[0]) == (0, f"{SPEC} a.bin: 1 bad chunk, repaired")
    assert registry.bytes_sent - sent == CHUNK
    assert file.read_bytes() == plain(tmp_path, "a.bin")
    assert run("pin", "--check").code == 0


def test_partial(run: Run, registry: RegistryServer, tmp_path: Path) -> None:
    """What was never fetched stays so."""
    run("registry", "add", registry.url)
    run("pin", SPEC)
    cache = tmp_path / "cache"
    entry = entry_of(cache, "a.bin")
    with closing(Store.open(cache)) as store:
        stored = store.object(entry)
        stored.hold()
        stored.punch(8, 13)
        stored.release()
    spoil(cache, "a.bin", 2 * CHUNK)
    sent = registry.bytes_sent
    assert run("verify", "--repair").code == 0
    assert registry.bytes_sent - sent == CHUNK
    with closing(Store.open(cache)) as store:
        assert store.object(entry).missing(0, 13) == [(8, 13)]


def test_adopted(run: Run, cached: Path, registry: RegistryServer, tmp_path: Path) -> None:
    """After the index was lost the chunk tables are asked for, and bad chunks are found by them."""
    file = spoil(cached, "a.bin", 7 * CHUNK)
    with closing(Store.open(cached)) as store:
        stored = store.manifest(parse_spec(SPEC))
        assert stored is not None
    (cached / "index.lmdb").unlink()
    with closing(Store.open(cached)) as store:
        store.put_manifest(stored.manifest, stored.base)
    registry.__exit__(None, None, None)
    try:
        run("config", "set", "deadline", "2")
        unjudged = run("verify", SPEC)
        assert unjudged.code == 1
        assert "a.bin: " in unjudged.out
        assert "bad chunk" not in unjudged.out, "not judged is not bad"
        assert file.stat().st_size == SIZES["a.bin"], "and nothing is dropped for it"
    finally:
        registry.__enter__()
    done = run("verify", SPEC, "--repair")
    assert (done.code, done.out.splitlines()[0]) == (0, f"{SPEC} a.bin: 1 bad chunk, repaired")
    assert file.read_bytes() == plain(tmp_path, "a.bin")
    assert run("verify").out.endswith("0 bad\n")


def test_quarantined(run: Run, registry: RegistryServer, tmp_path: Path) -> None:
    """It is named in `status` with its file, and fetched again once the source is right again."""
    run("registry", "add", registry.url)
    without_tables(tmp_path / "registry")
    source = next(
        path
        for path in (tmp_path / "registry/objects").rglob("*")
        if path.is_file() and path.stat().st_size == SIZES["b.bin"]
    )
    right = source.read_bytes()
    source.chmod(0o644)
    source.write_bytes(bytes([right[0] ^ 1]) + right[1:])
    assert run("pin", SPEC).code == 1
    shown = run("status").out
    assert "quarantined objects, which are not served" in shown
    assert f"{SPEC} b.bin: object {source.name[:12]} has the wrong sha256" in shown
    assert "axonfs verify --repair fetches it again" in shown
    still = run("verify", "--repair", SPEC)
    assert still.code == 1
    assert "b.bin: " in still.out
    source.write_bytes(right)
    done = run("verify", "--repair", SPEC)
    assert (done.code, done.out.splitlines()[0]) == (0, f"{SPEC} b.bin: repaired")
    assert "which are not served" not in run("status").out
    assert run("pin", SPEC).code == 0
