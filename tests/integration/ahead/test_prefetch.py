"""A load that was foreseen, over real sources and a real store: what is asked for, and when not."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import trio

import axonfs.ahead.plan
import axonfs.ahead.prefetcher
import axonfs.ahead.walks
from axonfs.engine import Engine, open_engine
from axonfs.http_client import Caches, SiteCaches
from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.settings.settings import Settings
from tests.support import faulty
from tests.support.faulty import Exchange
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import CHUNK, Gate, chunks_of, on_objects, settled
from tests.support.foreseeing import foreseeing
from tests.support.registry import SPEC, make_model, published

SHARDS = [f"model-{number}.safetensors" for number in (1, 2, 10)]
PARTS = [f"parts/part-0000{number}-of-00003.bin" for number in (1, 2, 3)]
SIZES = dict.fromkeys(SHARDS, 4 * CHUNK + 7) | {
    "stale.safetensors": CHUNK,
    "pytorch_model.bin": CHUNK,
    "original/consolidated.00.pth": CHUNK,
    **dict.fromkeys(PARTS, 2 * CHUNK),
    "tokenizer.json": 4321,
}
INDEX = "model.safetensors.index.json"
SMALL = ["config.json", INDEX, "tokenizer.json"]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads begin without a moment's wait: test_prefetch of the unit tests is about that."""
    monkeypatch.setattr(axonfs.ahead.walks, "QUIET_SECONDS", 0.0)


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """One version whose index names the shards, and not the stale file."""
    source = make_model(tmp_path / "source", SIZES)
    weight_map = {f"layer.{name}": name for name in SHARDS}
    (source / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    publish(source, parse_spec(SPEC), tmp_path / "registry", chunk_size=CHUNK)
    return tmp_path / "registry"


async def test_the_small_files_and_then_the_shards_in_order(
    tmp_path: Path, origin: FaultyOrigin
) -> None:
    async with foreseeing(tmp_path, origin) as it:
        await it.open()
        assert await it.ended() == "done"
        assert it.asked(origin) == SMALL + SHARDS
        size = sum(SIZES[name] for name in [*SHARDS, "tokenizer.json"])
        size += it.local("config.json") + it.local(INDEX)
        assert it.load == {
            "spec": SPEC,
            "trigger": "config.json",
            "state": "done",
            "files": 6,
            "size": size,
            "local": size,
            "path": SHARDS[-1],
        }
        assert it.prefetcher.statistics()["ended"] == {"done": 1}


async def test_a_host_behind_site_caches_begins_elsewhere(
    tmp_path: Path, origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that hosts that start together do not ask all caches for the same slices at once."""
    async with foreseeing(tmp_path, origin) as it:
        version = await it.parts.tree.version(parse_spec(SPEC))
        assert it.parts.fetcher.begin_at(version) == 0
        caches = Caches([SiteCaches(origin.url, [origin.url])])
        it.parts.fetcher._network.bodies.caches = caches
        monkeypatch.setattr("random.randrange", lambda places: places - 1)
        await it.open()
        assert await it.ended() == "done"
        assert it.asked(origin) == [*SMALL, SHARDS[2], *SHARDS[:2]]


async def test_all_is_every_file(tmp_path: Path, origin: FaultyOrigin) -> None:
    async with foreseeing(tmp_path, origin, mode="all") as it:
        await it.open()
        assert await it.ended() == "done"
        asked = it.asked(origin)
        assert asked[:3] == SMALL
        assert sorted(asked) == [entry.path for entry in it.manifest.files]


async def test_off_is_nothing(tmp_path: Path, origin: FaultyOrigin) -> None:
    async with foreseeing(tmp_path, origin, mode="off") as it:
        await it.open()
        assert it.prefetcher.statistics() == {"mode": "off", "loads": [], "ended": {}}
        assert it.asked(origin) == []


async def test_a_reader_goes_first(tmp_path: Path, origin: FaultyOrigin) -> None:
    gate = Gate()
    async with foreseeing(tmp_path, origin) as it:
        origin.always(on_objects(gate))
        await it.open(INDEX)
        await gate.reached()
        feed = await it.parts.open(SHARDS[-1])
        async with trio.open_nursery() as readers:
            readers.start_soon(feed.need, chunks_of(2))
            await trio.testing.wait_all_tasks_blocked()
            gate.open.set()
        feed.close()
        assert await it.ended() == "done"
        assert it.asked(origin)[:2] == ["config.json", SHARDS[-1]]
        assert it.load["local"] == it.load["size"]


async def test_several_triggers_of_one_load_ask_for_nothing_twice(
    tmp_path: Path, origin: FaultyOrigin
) -> None:
    gate = Gate()
    async with foreseeing(tmp_path, origin) as it:
        origin.always(on_objects(gate))
        await it.open()
        await gate.reached()
        for path in ("config.json", INDEX, "config.json", "original/params.json"):
            await it.open(path)
        gate.open.set()
        assert await it.ended() == "done"
        assert len(it.prefetcher.statistics()["loads"]) == 1
        asked = it.asked(origin)
        assert asked == [*SMALL, *SHARDS, "original/consolidated.00.pth"]
        requests = len(origin.requests)
        await it.open()
        assert await it.ended() == "done"
        assert len(origin.requests) == requests


async def test_the_next_shard_is_requested_before_the_last_one_is_there(
    tmp_path: Path, origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is not idle while one shard ends and the next one begins."""
    monkeypatch.setattr(axonfs.ahead.plan, "AHEAD", 1)
    gate = Gate()
    async with foreseeing(tmp_path, origin, streams=6) as it:
        origin.always(on_objects(gate))
        version = await it.parts.tree.version(parse_spec(SPEC))
        it.prefetcher.streamed(version, PARTS[0])
        await gate.reached()
        await settled(lambda: sorted(it.asked(origin)) == PARTS[:2])
        it.prefetcher.streamed(version, PARTS[1])
        await settled(lambda: sorted(it.asked(origin)) == PARTS)
        gate.open.set()
        assert await it.ended() == "done"
        assert [it.local(path) for path in PARTS] == [2 * CHUNK] * 3


async def test_config_json_says_no_more_than_what_was_opened_before_it(
    tmp_path: Path, origin: FaultyOrigin
) -> None:
    """A loader of one format looks into the config.json of the other."""
    async with foreseeing(tmp_path, origin) as it:
        await it.open("pytorch_model.bin.index.json")
        assert await it.ended() == "done"
        await it.open("config.json")
        assert await it.ended() == "done"
        assert it.asked(origin) == [*SMALL, "pytorch_model.bin"]


async def test_a_file_that_cannot_be_had_does_not_stop_the_others(
    tmp_path: Path, origin: FaultyOrigin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with foreseeing(tmp_path, origin, streams=4) as it:
        bad = it.manifest.file(SHARDS[1])
        assert bad is not None

        def gone(exchange: Exchange) -> None:
            if exchange.seen.path.endswith(f"/objects/sha256/{bad.digest[:2]}/{bad.digest}"):
                faulty.status(404)(exchange)

        origin.always(gone)
        await it.open()
        assert await it.ended() == "incomplete"
        assert [it.local(name) for name in SHARDS] == [SIZES[SHARDS[0]], 0, SIZES[SHARDS[2]]]
        assert it.load["size"] - it.load["local"] == bad.size
    lines = [record for record in caplog.records if "prefetch skips a file" in record.message]
    assert len(lines) == 1
    assert SHARDS[1] in lines[0].message
    assert max(record.levelno for record in caplog.records) == logging.INFO


async def test_offline_sends_nothing(tmp_path: Path, origin: FaultyOrigin) -> None:
    async with foreseeing(tmp_path, origin) as it:
        assert it.manifest.files
    sent = len(origin.requests)
    async with foreseeing(tmp_path, origin, offline=True) as it:
        await it.open()
        assert it.prefetcher.statistics()["loads"] == []
    assert len(origin.requests) == sent


async def test_what_fits_is_fetched_in_order(
    tmp_path: Path, origin: FaultyOrigin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    limit = 9 * CHUNK
    async with foreseeing(tmp_path, origin, limit=limit) as it:
        await it.open()
        assert await it.ended() == "no room"
        assert it.local(SHARDS[0]) == SIZES[SHARDS[0]]
        assert it.local(SHARDS[2]) == 0
        assert it.parts.store.usage() <= limit
        requests = len(origin.requests)
        await it.open(INDEX)
        await it.ended()
        assert len(origin.requests) == requests  # and not again
    assert "more does not fit into the cache" in caplog.text


async def test_what_others_have_open_stays(tmp_path: Path, origin: FaultyOrigin) -> None:
    async with foreseeing(tmp_path, origin, limit=8 * CHUNK) as it:
        feed = await it.parts.open("stale.safetensors")
        await it.parts.read(feed)
        await it.open("original/params.json")
        assert await it.ended() == "done"  # 2 of 8 chunks
        other = await it.parts.open(SHARDS[2])
        await it.parts.read(other)
        await it.open()
        assert await it.ended() == "no room"
        assert it.local(SHARDS[0]) == 0
        assert it.local("stale.safetensors") == CHUNK
        feed.close()
        other.close()


async def test_a_load_ends_when_what_it_fetched_is_evicted(
    tmp_path: Path, origin: FaultyOrigin
) -> None:
    gate = Gate()
    async with foreseeing(tmp_path, origin) as it:
        await it.open("original/params.json")
        await it.ended()
        first = it.manifest.file(SHARDS[0])
        assert first is not None

        def held(exchange: Exchange) -> None:
            if first.digest in exchange.seen.path and "/objects/" in exchange.seen.path:
                gate(exchange)

        origin.always(held)
        await it.open()
        await gate.reached()
        it.prefetcher.evicted(["0" * 64])
        assert it.load["state"] == "running"
        it.prefetcher.evicted([first.digest])
        gate.open.set()
        assert await it.ended() == "no room"
        assert it.local(SHARDS[2]) == 0


@pytest.mark.parametrize(("settled_seconds", "second"), [(0.0, "done"), (600.0, "no room")])
async def test_two_models_that_do_not_fit_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled_seconds: float, second: str
) -> None:
    """The first one makes room for the second, but not while its own reader may yet come."""
    monkeypatch.setattr(axonfs.ahead.prefetcher, "SETTLED_SECONDS", settled_seconds)
    sizes, limit = {"model.safetensors": 6 * CHUNK}, 10 * CHUNK
    specs = (SPEC, "nlp/tiny@2.0.0")
    for seed, spec in enumerate(specs):
        registry = published(tmp_path, sizes, spec=spec, seed=seed, chunk_size=CHUNK)
    with FaultyOrigin(registry) as origin:
        settings = Settings((origin.url,), tmp_path / "cache", cache_size=limit, deadline=5)
        async with open_engine(settings) as engine:
            states = [await _load(engine, spec) for spec in specs]
            assert states == ["done", second]
            await settled(lambda: engine.store.usage() <= limit)
            whole = [await _whole(engine, spec) for spec in specs]
            assert whole == ([False, True] if second == "done" else [True, False])


async def _load(engine: Engine, spec: str) -> str:
    """Have a load of `spec` begin; the state in which it ends."""
    engine.prefetcher.opened(await engine.tree.version(parse_spec(spec)), "config.json")

    def state() -> str:
        loads = engine.prefetcher.statistics()["loads"]
        states = {load["spec"]: str(load["state"]) for load in loads}
        return states.get(spec, "waiting")

    await settled(lambda: state() not in ("waiting", "running"))
    await settled(lambda: not engine.fetcher.feeds())  # the last chunk lands before its job ends
    return state()


async def _whole(engine: Engine, spec: str) -> bool:
    """Whether the weights are local; config.json is the same object in both versions."""
    version = await engine.tree.version(parse_spec(spec))
    entry = version.manifest.file("model.safetensors")
    info = engine.store.peek(entry.digest) if entry else None
    return info is not None and info.complete


async def test_a_guess_fetches_no_more_than_some_bytes_of_a_shard_and_the_next_one(
    tmp_path: Path, origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(axonfs.ahead.prefetcher, "AHEAD", 3 * CHUNK)
    async with foreseeing(tmp_path, origin) as it:
        version = await it.parts.tree.version(parse_spec(SPEC))
        it.prefetcher.scattered(version, PARTS[1])
        assert await it.ended() == "done"
        assert [it.local(path) for path in PARTS] == [0, 2 * CHUNK, 0]  # whole requests
        it.prefetcher.scattered(version, PARTS[2])
        assert await it.ended() == "done"
        assert [it.local(path) for path in PARTS] == [0, 2 * CHUNK, 2 * CHUNK]


@pytest.mark.parametrize(("ahead", "guesses"), [(4, 2), (8, 1)])
async def test_a_guess_goes_on_before_the_last_bytes_are_there_if_it_leaves_some(
    tmp_path: Path, origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch, ahead: int, guesses: int
) -> None:
    monkeypatch.setattr(axonfs.ahead.prefetcher, "AHEAD", ahead * CHUNK)
    gate = Gate()
    async with foreseeing(tmp_path, origin, streams=6) as it:
        version = await it.parts.tree.version(parse_spec(SPEC))
        origin.plan(gate, of=next(e.digest for e in it.manifest.files if e.path == PARTS[1]))
        it.prefetcher.scattered(version, PARTS[0])
        await gate.reached()
        await settled(lambda: it.local(PARTS[0]) == 2 * CHUNK)
        for _ in range(3):
            it.prefetcher.scattered(version, PARTS[1])
        await settled(lambda: it.local(PARTS[2]) == 2 * CHUNK)
        gate.open.set()
        assert await it.ended() == "done"
        assert it.local(PARTS[1]) == 2 * CHUNK
        assert [len(load.triggers) for load in it.prefetcher._loads.values()] == [guesses]


async def test_shards_are_fetched_in_the_order_of_their_reader(
    tmp_path: Path, origin: FaultyOrigin
) -> None:
    async with foreseeing(tmp_path, origin) as it:
        version = await it.parts.tree.version(parse_spec(SPEC))
        it.prefetcher.streamed(version, PARTS[2])
        assert await it.ended() == "done"
        assert it.asked(origin) == [PARTS[2], PARTS[1], PARTS[0]]
