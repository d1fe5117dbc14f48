"""What is taken for the start of a load, and what for a walk; by a clock that jumps."""

from __future__ import annotations

import math
import os
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

import axonfs.ahead.prefetcher
from axonfs.ahead.plan import AHEAD
from axonfs.ahead.prefetcher import NO_ROOM_SECONDS, RUNNING_LOADS, SHOWN_LOADS, Prefetcher
from axonfs.ahead.walks import QUIET_SECONDS
from axonfs.catalog.tree import Version
from axonfs.formats.manifest import FileEntry, Manifest
from axonfs.names import parse_spec

CONFIG = "config.json"


class FakeLoad:
    """A load that takes as long as the test says."""

    made: list[FakeLoad]

    def __init__(self, version: Version, *_: Any, before: FakeLoad | None, **__: Any) -> None:
        self.version, self.before = version, before
        self.triggers: list[str] = []
        self.most: list[float] = []
        self.digests = {entry.digest for entry in version.manifest.files}
        self.ended, self.stopped, self.state = math.inf, False, "running"
        self.running, self.finish = False, trio.Event()
        self.to_come = math.inf
        self.made.append(self)

    @property
    def active(self) -> bool:
        return self.ended == math.inf

    @property
    def paths(self) -> list[str]:
        return self.triggers

    def foresee(self, path: str, most: float = math.inf) -> None:
        self.triggers.append(path)
        self.most.append(most)

    def stop(self) -> None:
        self.stopped = True

    def statistics(self) -> dict[str, Any]:
        return {"spec": str(self.version.spec)}

    async def run(self) -> None:
        self.running = True
        await self.finish.wait()
        self.ended = trio.current_time()


@pytest.fixture(autouse=True)
def loads(monkeypatch: pytest.MonkeyPatch) -> list[FakeLoad]:
    FakeLoad.made = []
    monkeypatch.setattr(axonfs.ahead.prefetcher, "Load", FakeLoad)
    return FakeLoad.made


def version(name: str, *, source: object = object()) -> Version:
    """A version of a model of this name."""
    entry = FileEntry(CONFIG, 5, name.ljust(64, "0"))
    manifest = Manifest(parse_spec(f"nlp/{name}@1"), (entry,), raw=name.encode())
    return Version(manifest, "http://x", cast(Any, source))


def prefetcher(nursery: trio.Nursery, mode: str = "auto", *, offline: bool = False) -> Prefetcher:
    fetcher = SimpleNamespace(offline=offline)
    return Prefetcher(cast(Any, fetcher), cast(Any, None), nursery, mode=mode)


async def later(seconds: float = 2 * QUIET_SECONDS) -> None:
    await trio.sleep(seconds)
    await trio.testing.wait_all_tasks_blocked()


def sharded(name: str = "one") -> Version:
    """A version of a model of three shards."""
    paths = [f"m-0000{number}-of-00003.bin" for number in (1, 2, 3)]
    entries = tuple(FileEntry(path, 5, f"{name}{path[6]}".ljust(64, "0")) for path in paths)
    manifest = Manifest(parse_spec(f"nlp/{name}@1"), entries, raw=name.encode())
    return Version(manifest, "http://x", cast(Any, object()))


async def test_a_streamed_shard_has_the_next_one_fetched_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock, loads: list[FakeLoad]
) -> None:
    one, foreseen = sharded(), prefetcher(nursery)
    paths = [entry.path for entry in one.manifest.files]
    foreseen.opened(one, paths[1], whole=True)
    assert loads == []
    foreseen.streamed(one, paths[0])
    foreseen.streamed(one, paths[0])  # a second reader
    assert [load.triggers for load in loads] == [[paths[0]]]
    loads[0].digests = {one.manifest.files[1].digest}
    foreseen.opened(one, paths[1])  # its reads will tell
    foreseen.opened(one, paths[2], whole=True)  # was not prefetched
    assert loads[-1].triggers == [paths[0]]
    foreseen.opened(one, paths[1], whole=True)
    assert loads[-1].triggers == paths[:2]
    loads[0].finish.set()


async def test_a_program_that_opens_a_second_shard_has_some_of_both_fetched_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock, loads: list[FakeLoad]
) -> None:
    one, foreseen, program = sharded(), prefetcher(nursery), os.getpid()
    paths = [entry.path for entry in one.manifest.files]
    foreseen.opened(one, paths[0], program)
    assert loads == []
    foreseen.opened(one, paths[1], program)
    foreseen.opened(one, paths[2], program)
    assert [(load.triggers, load.most) for load in loads] == [([paths[0]], [AHEAD])]


async def test_weights_that_are_read_here_and_there_are_fetched_some_at_a_time(
    nursery: trio.Nursery, autojump_clock: MockClock, loads: list[FakeLoad]
) -> None:
    one, foreseen = sharded(), prefetcher(nursery)
    path = one.manifest.files[2].path
    for _ in range(2):
        foreseen.scattered(one, path)
        foreseen.scattered(one, path)  # it is on its way
        loads[-1].to_come = AHEAD // 2
        foreseen.scattered(one, path)  # the line must not become idle
        loads[-1].finish.set()
        await later()
    loads[-1].state = "no room"
    foreseen.scattered(one, path)
    foreseen.scattered(version("other"), CONFIG)  # no weights
    assert [(load.triggers, load.most) for load in loads] == 2 * [(2 * [path], 2 * [AHEAD])]
    await later(NO_ROOM_SECONDS)
    foreseen.scattered(one, path)
    assert len(loads) == 3


async def test_a_load_begins_a_moment_after_the_open(
    nursery: trio.Nursery, autojump_clock: MockClock, loads: list[FakeLoad]
) -> None:
    foreseen, one = prefetcher(nursery), version("one")
    foreseen.opened(one, CONFIG)
    foreseen.opened(one, "tokenizer.json")
    await later(0.9 * QUIET_SECONDS)
    assert loads == []
    foreseen.opened(one, "sub/config.json")
    await later(0.2 * QUIET_SECONDS)
    assert [(load.version, load.triggers) for load in loads] == [(one, [CONFIG, "sub/config.json"])]
    assert foreseen.statistics() == {"mode": "auto", "loads": [{"spec": "nlp/one@1"}], "ended": {}}


async def test_two_versions_at_once_are_a_load_and_three_a_walk(
    nursery: trio.Nursery, autojump_clock: MockClock, loads: list[FakeLoad]
) -> None:
    foreseen = prefetcher(nursery)
    for names, expected in (("ab", 2), ("cde", 0), ("fghijkl", 0), ("m", 1)):
        loads.clear()
        for name in names:
            foreseen.opened(version(name), CONFIG)
            await later(0.9 * QUIET_SECONDS)
        await later()
        assert len(loads) == expected


async def test_a_walk_that_goes_on_is_one_walk(
    nursery: trio.Nursery, autojump_clock: MockClock, loads: list[FakeLoad]
) -> None:
    foreseen = prefetcher(nursery)
    for number in range(50):
        foreseen.opened(version(f"m{number}"), CONFIG)
        foreseen.opened(version(f"m{number}"), CONFIG)
        await later(0.5 * QUIET_SECONDS)
    await later()
    assert loads == []


async def test_an_open_during_a_load_joins_it_and_one_after_it_begins_another(
    nursery: trio.Nursery, autojump_clock: MockClock, loads: list[FakeLoad]
) -> None:
    foreseen, one = prefetcher(nursery), version("one")
    for _ in range(3):
        foreseen.opened(one, CONFIG)
        await later()
    (load,) = loads
    assert load.triggers == [CONFIG] * 3
    load.finish.set()
    await later()
    foreseen.opened(one, CONFIG)
    await later()
    assert [item.before for item in loads] == [None, load]


@pytest.mark.parametrize(
    ("mode", "offline", "source"),
    [("off", False, object()), ("auto", True, object()), ("auto", False, None)],
)
async def test_nothing_begins_where_nothing_may_or_can_be_sent(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    loads: list[FakeLoad],
    mode: str,
    offline: bool,
    source: object,
) -> None:
    prefetcher(nursery, mode, offline=offline).opened(version("one", source=source), CONFIG)
    await later()
    assert loads == []


async def test_loads_run_a_few_at_a_time_and_the_last_ones_are_shown(
    nursery: trio.Nursery, autojump_clock: MockClock, loads: list[FakeLoad]
) -> None:
    foreseen, count = prefetcher(nursery), SHOWN_LOADS + 5
    for number in range(count):
        foreseen.opened(version(f"m{number}"), CONFIG)
        await later()
    assert [load.running for load in loads].count(True) == RUNNING_LOADS
    assert len(foreseen.statistics()["loads"]) == count  # none of them has ended
    for load in loads:
        load.finish.set()
    await later()
    foreseen.opened(version("last"), CONFIG)
    await later()
    shown = [item["spec"] for item in foreseen.statistics()["loads"]]
    assert len(shown) == SHOWN_LOADS
    assert shown[-1] == "nlp/last@1"


async def test_loads_of_one_source_keep_none_of_another_waiting(
    nursery: trio.Nursery, autojump_clock: MockClock, loads: list[FakeLoad]
) -> None:
    foreseen = prefetcher(nursery)
    for number in range(2 * RUNNING_LOADS):
        foreseen.opened(version(f"m{number}"), CONFIG)
        await later()
    foreseen.opened(version("other", source=object()), CONFIG)
    await later()
    assert loads[-1].running
    assert not loads[-2].running
    for load in loads:
        load.finish.set()


async def test_only_a_load_that_loses_bytes_is_stopped(
    nursery: trio.Nursery, autojump_clock: MockClock, loads: list[FakeLoad]
) -> None:
    foreseen = prefetcher(nursery)
    for name in "ab":
        foreseen.opened(version(name), CONFIG)
    await later()
    foreseen.evicted(["a".ljust(64, "0"), "z".ljust(64, "0")])
    assert [load.stopped for load in loads] == [True, False]
