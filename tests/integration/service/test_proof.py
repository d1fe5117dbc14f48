"""The receipt of a pin, and what `pin --check` finds without a network."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from axonfs.engine import open_engine
from axonfs.names import parse_spec
from axonfs.ranges import Range
from axonfs.service import Service
from axonfs.service.context import Context
from axonfs.service.proof import Proof, prove
from axonfs.settings.settings import Settings
from axonfs.store import Store
from tests.support.commands import Run, ask
from tests.support.fetching import without_tables
from tests.support.registry import CONFIG, SPEC, RegistryServer, published
from tests.support.stores import BOOT, NEXT_BOOT, backing_file

CHUNK = 1 << 16
SIZES = {"model.safetensors": 20 * CHUNK + 123, "part/two.safetensors": 9 * CHUNK, "empty.txt": 0}
CHUNKS = 21 + 9 + 1  # and config.json
TOTAL = sum(SIZES.values()) + len(CONFIG)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    with RegistryServer(published(tmp_path, SIZES, chunk_size=CHUNK)) as server:
        yield server


@asynccontextmanager
async def service(settings: Settings, monkeypatch: pytest.MonkeyPatch, boot: str = BOOT) -> Any:
    """A service whose store believes in this boot."""
    opened = Store.open
    monkeypatch.setattr(
        Store, "open", lambda directory, **options: opened(directory, boot_id=boot, **options)
    )
    async with open_engine(settings) as engine:
        yield Service(engine)
    monkeypatch.setattr(Store, "open", opened)


async def check(answering: Service) -> dict[str, Any]:
    (checked,) = (await ask(answering, "pin_check"))["pins"]
    return dict(checked)


@pytest.fixture
async def pinned(
    settings: Settings, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Settings]:
    """The settings of an offline process, after a pin; the counting server has to stay silent."""
    async with service(settings, monkeypatch) as answering:
        (pin,) = (await ask(answering, "pin", specs=[SPEC]))["pins"]
        assert pin["receipt"] == {
            "complete": True,
            "manifest": pin["manifest"],
            "objects": 4,
            "chunks": CHUNKS,
            "bytes": pin["total"],
            "time": pin["receipt"]["time"],
        }
    asked = len(registry.requests)
    yield replace(settings, offline=True)
    assert len(registry.requests) == asked, "a check sent something"


def backing(settings: Settings, path: str) -> Path:
    """The backing file of a file of the model."""
    with closing(Store.open(settings.cache)) as store:
        stored = store.manifest(parse_spec(SPEC))
        assert stored is not None
        entry = stored.manifest.file(path)
        assert entry is not None
        return backing_file(settings.cache, entry.digest)


def only(checked: dict[str, Any]) -> tuple[str, str]:
    assert not checked["whole"]
    (missing,) = checked["missing"]
    return missing["path"], missing["why"]


async def test_a_receipt_stays_and_is_proven_again_after_a_boot(
    pinned: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for boot in (BOOT, NEXT_BOOT, NEXT_BOOT):
        async with service(pinned, monkeypatch, boot) as answering:
            checked = await check(answering)
            assert (checked["whole"], checked["files"], checked["chunks"]) == (True, 4, CHUNKS)
            assert checked["receipt"]["complete"]


async def test_a_check_makes_chunks_usable_that_a_boot_left_in_doubt(
    pinned: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(pinned, monkeypatch, NEXT_BOOT) as answering:
        assert (await check(answering))["whole"]
    with closing(Store.open(pinned.cache, boot_id=NEXT_BOOT)) as store:
        stored = store.manifest(parse_spec(SPEC))
        assert stored is not None
        for entry in stored.manifest.files:
            known = store.object(entry)
            assert known.present(0, known.count)


async def test_a_bit_that_flipped_before_the_boot_is_found(
    pinned: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = backing(pinned, "part/two.safetensors")
    with path.open("r+b") as file:
        file.seek(3 * CHUNK)
        file.write(bytes(10))
    async with service(pinned, monkeypatch, NEXT_BOOT) as answering:
        path_of, why = only(await check(answering))
        assert path_of == "part/two.safetensors"
        assert why == "1 chunk damaged on the disk, 64 KiB of 576 KiB are missing"
        assert not (await check(answering))["receipt"]["complete"], "the receipt is taken back"


async def test_a_hole_in_a_backing_file_is_found_in_the_same_boot(
    pinned: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = backing(pinned, "model.safetensors")
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(data[: 4 * CHUNK])
        file.seek(6 * CHUNK)
        file.write(data[6 * CHUNK :])
    async with service(pinned, monkeypatch) as answering:
        path_of, why = only(await check(answering))
    assert (path_of, why) == (
        "model.safetensors",
        "2 chunks damaged on the disk, 128 KiB of 1.3 MiB are missing",
    )


async def test_bits_that_the_index_lost_are_found(
    pinned: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Store.open(pinned.cache, boot_id=BOOT)) as store:
        stored = store.manifest(parse_spec(SPEC))
        assert stored is not None
        entry = stored.manifest.file("model.safetensors")
        assert entry is not None
        known = store.object(entry)
        known.hold()
        known.punch(2, 5)
        known.release()
    async with service(pinned, monkeypatch) as answering:
        assert only(await check(answering)) == (
            "model.safetensors",
            "192 KiB of 1.3 MiB are missing",
        )


async def test_a_manifest_that_is_another_one_is_found(
    pinned: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Store.open(pinned.cache, boot_id=BOOT)) as store:
        (pin,) = store.pins()
        store.put_pin(replace(pin, manifest_digest="0" * 64))
    async with service(pinned, monkeypatch) as answering:
        assert only(await check(answering)) == ("", "its manifest is not the one that was pinned")
    with closing(Store.open(pinned.cache, boot_id=BOOT)) as store:
        store.drop_manifest(parse_spec(SPEC))
    async with service(pinned, monkeypatch) as answering:
        assert only(await check(answering)) == ("", "its manifest is not local")


async def test_what_a_lost_index_left_is_proven_by_the_chunk_tables_alone(
    pinned: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adopted bytes: with the tables they can be compared, without them they cannot."""
    with closing(Store.open(pinned.cache, boot_id=BOOT)) as store:
        (pin,) = store.pins()
        stored = store.manifest(pin.spec)
        assert stored is not None
        tables = [(entry.digest, store.table(entry)) for entry in stored.manifest.files]
    (pinned.cache / "index.lmdb").unlink()
    with closing(Store.open(pinned.cache, boot_id=BOOT)) as store:
        store.put_manifest(stored.manifest, stored.base)
        store.put_pin(replace(pin, complete=False))
    async with service(pinned, monkeypatch) as answering:
        checked = await check(answering)
    assert {item["path"] for item in checked["missing"]} == {
        "model.safetensors",
        "part/two.safetensors",
    }
    assert all("its chunk table is missing" in item["why"] for item in checked["missing"])
    with closing(Store.open(pinned.cache, boot_id=BOOT)) as store:
        for digest, table in tables:
            if table is not None:
                store.put_table(digest, table)
    async with service(pinned, monkeypatch) as answering:
        assert (await check(answering))["whole"]
        assert (await check(answering))["receipt"]["complete"], "proven, so it says so again"


async def test_an_object_without_a_table_is_proven_as_a_whole(
    settings: Settings, registry: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_tables(tmp_path / "registry")
    async with service(settings, monkeypatch) as answering:
        (pin,) = (await ask(answering, "pin", specs=[SPEC]))["pins"]
        assert pin["receipt"]["complete"]
    path = backing(settings, "model.safetensors")
    async with service(replace(settings, offline=True), monkeypatch, NEXT_BOOT) as answering:
        assert (await check(answering))["whole"]
    with path.open("r+b") as file:
        file.write(bytes(10))
    async with service(replace(settings, offline=True), monkeypatch, BOOT) as answering:
        assert only(await check(answering))[0] == "model.safetensors"


async def test_a_pin_that_adds_files_proves_those_pinned_earlier_too(
    settings: Settings, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(settings, monkeypatch) as answering:
        await ask(answering, "pin", specs=[SPEC], include=["part/"])
    path = backing(settings, "part/two.safetensors")
    with path.open("r+b") as file:
        file.write(bytes(10))
    async with service(settings, monkeypatch, NEXT_BOOT) as answering:
        async with aclosing(
            answering.handle({"op": "pin", "specs": [SPEC], "include": ["config.json"]})
        ) as stream:
            events = [event async for event in stream]
        notes = [event["text"] for event in events if event["event"] == "note"]
        assert notes == [
            f"{SPEC} part/two.safetensors: 1 chunk damaged on the disk,"
            " 64 KiB of 576 KiB are missing; an earlier pin has this file"
        ]
        assert not events[-1]["pins"][0]["receipt"]["complete"]


async def test_one_that_is_dropped_at_the_last_moment_fails_the_pin(
    settings: Settings, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(settings, monkeypatch) as answering:
        judged = answering._engine.fetcher.open

        async def open_and_lose(version: Any, entry: Any) -> Any:
            feed = await judged(version, entry)
            if entry.path == "part/two.safetensors" and feed.object.complete:
                feed.object.punch(*Range(1, 2))
            return feed

        monkeypatch.setattr(answering._engine.fetcher, "open", open_and_lose)
        answer = await ask(answering, "pin", specs=[SPEC])
    assert answer["event"] == "error"
    assert "part/two.safetensors: was lost while it was being pinned: 64 KiB" in answer["message"]


def test_the_commands_show_the_receipt(run: Run, registry: RegistryServer, tmp_path: Path) -> None:
    run("registry", "add", registry.url)
    first, second, _ = run("pin", SPEC).out.splitlines()
    assert first.startswith(f"{SPEC} is pinned: 4 files, 1.8 MiB (1.8 MiB fetched")
    assert second.startswith("  verified 20")
    assert ": 31 chunks of 4 objects, 1.8 MiB, manifest sha256:" in second
    registry.__exit__(None, None, None)
    try:
        whole = run("pin", "--check")
        assert whole.out.startswith(f"{SPEC} is complete: 4 files, 31 chunks, 1.8 MiB, pinned 20")
        largest = max((tmp_path / "cache/objects").rglob("*"), key=lambda file: file.stat().st_size)
        os.truncate(largest, CHUNK)
        lost = run("pin", "--check")
        assert lost.code == 1
        assert lost.out == f"{SPEC} model.safetensors: 1.2 MiB of 1.3 MiB are missing\n"
    finally:
        registry.__enter__()


@pytest.mark.parametrize("chosen_before", [False, True])
async def test_an_eviction_during_a_pin_takes_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, chosen_before: bool
) -> None:
    """Neither one that comes when all is local and nothing proven, nor one that had chosen its
    objects before they were pinned."""
    evictions = iter([True])

    async def evict_and_prove(context: Context, *asked: Any) -> Proof:
        if next(evictions, False):
            store = context.store
            digests = [info.digest for info in store.infos()] if chosen_before else []
            dropped = [*map(store.drop, digests), store.evict(0).freed]
            assert sum(dropped) == (TOTAL if chosen_before else 0)
        return await prove(context, *asked)

    async with service(settings, monkeypatch) as answering:
        await ask(answering, "pin", specs=[SPEC])
        await ask(answering, "unpin", specs=[SPEC])
        monkeypatch.setattr("axonfs.service.pins.prove", evict_and_prove)
        answer = await ask(answering, "pin", specs=[SPEC])
        assert answer["pins"][0]["fetched"] == (TOTAL if chosen_before else 0)
        assert (await ask(answering, "pin_check"))["pins"][0]["whole"]
