"""What each version takes of the cache, and dropping it: never pinned, shared or open bytes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import trio

from axonfs.engine import Engine, open_engine
from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.ranges import Range
from axonfs.service import Service
from axonfs.settings.settings import Settings
from tests.integration.service.conftest import CHUNK, SIZES, TOTAL
from tests.support.commands import Run, ask
from tests.support.registry import CONFIG, SPEC, RegistryServer, published

NEXT, OTHER = "nlp/tiny@1.1.0", "vision/other@1.0.0"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    """Two versions that share all but the weights, and a model that shares the config only."""
    directory = published(tmp_path, SIZES, chunk_size=CHUNK)
    tree = tmp_path / "models/nlp/tiny"
    published(tmp_path, SIZES, spec=NEXT, chunk_size=CHUNK)
    (tree / "1.1.0/model.safetensors").write_bytes(b"other weights" * CHUNK)
    (directory / "api/v1/models/nlp/tiny/1.1.0/manifest.yaml").unlink()
    publish(tree / "1.1.0", parse_spec(NEXT), directory, chunk_size=CHUNK)
    published(tmp_path, {"w.bin": 5 * CHUNK}, spec=OTHER, seed=3, chunk_size=CHUNK)
    with RegistryServer(directory) as server:
        yield server


WEIGHTS = SIZES["model.safetensors"]
NEW_WEIGHTS = len(b"other weights") * CHUNK
SHARED = TOTAL - WEIGHTS


async def fetched(engine: Engine, *specs: str) -> None:
    """Have versions local, and not pinned."""
    service = Service(engine)
    await ask(service, "pin", specs=list(specs))
    await ask(service, "unpin", specs=list(specs))


async def test_each_version_says_what_it_alone_takes(settings: Settings) -> None:
    async with open_engine(settings) as engine:
        await fetched(engine, SPEC, NEXT)
        await ask(Service(engine), "pin", specs=[OTHER])
        found = await ask(Service(engine), "cache_versions")
        by_spec = {item["spec"]: item for item in found["versions"]}
        own = {spec: item["own"] for spec, item in by_spec.items()}
        assert own == {SPEC: WEIGHTS, NEXT: NEW_WEIGHTS, OTHER: 5 * CHUNK}
        assert by_spec[SPEC]["local"] == by_spec[SPEC]["size"] == TOTAL
        assert [by_spec[spec]["pinned"] for spec in (SPEC, OTHER)] == ["", "complete"]
        assert abs(by_spec[SPEC]["used"] - time.time()) < 600
        assert found["loose"] == {"objects": 0, "bytes": 0}


async def test_rm_drops_what_nothing_else_needs_and_says_what_stays(settings: Settings) -> None:
    async with open_engine(settings) as engine:
        answering = Service(engine)
        await fetched(engine, SPEC, NEXT)
        await ask(answering, "pin", specs=[OTHER])
        before = engine.store.usage()
        plan = await ask(answering, "cache_rm_plan", specs=[SPEC])
        assert engine.store.usage() == before
        done = await ask(answering, "cache_rm", specs=[SPEC])
        assert done["specs"] == plan["specs"]
        (item,) = done["specs"]
        assert item["freed"] == WEIGHTS == before - engine.store.usage()
        (kept,) = item["kept"]
        assert (kept["why"], kept["bytes"]) == ("shared", SHARED)
        assert set(kept["by"]) == {NEXT, OTHER}
        versions = (await ask(answering, "cache_versions"))["versions"]
        assert {item["spec"] for item in versions} == {NEXT, OTHER}
        (item,) = (await ask(answering, "cache_rm", specs=["nlp/tiny"]))["specs"]
        assert (item["spec"], item["freed"]) == (NEXT, NEW_WEIGHTS + SHARED - len(CONFIG))
        assert engine.store.usage() == 5 * CHUNK + len(CONFIG)


async def test_versions_that_go_together_keep_nothing_for_each_other(settings: Settings) -> None:
    async with open_engine(settings) as engine:
        await fetched(engine, SPEC, NEXT)
        plan = await ask(Service(engine), "cache_rm_plan", specs=[SPEC, NEXT])
        done = await ask(Service(engine), "cache_rm", specs=[SPEC, NEXT])
        assert plan["specs"] == done["specs"]
        assert sum(item["freed"] for item in done["specs"]) == TOTAL + NEW_WEIGHTS
        assert not any(item["kept"] for item in done["specs"])
        assert engine.store.usage() == 0


async def test_rm_refuses_a_pinned_version_before_anything_goes(settings: Settings) -> None:
    async with open_engine(settings) as engine:
        answering = Service(engine)
        await fetched(engine, SPEC)
        await ask(answering, "pin", specs=[OTHER])
        before = engine.store.usage()
        refused = await ask(answering, "cache_rm", specs=[SPEC, OTHER])
        assert "vision/other@1.0.0: is pinned, so nothing was dropped" in refused["message"]
        assert "axonfs uninstall vision/other@1.0.0" in refused["message"]
        assert engine.store.usage() == before
        never = await ask(answering, "cache_rm", specs=[NEXT])
        assert "nothing of it is local" in never["message"]
        await ask(answering, "pin", specs=[NEXT])
        several = await ask(answering, "cache_rm", specs=["nlp/tiny"])
        assert "several versions are local; name one: 1.0.0, 1.1.0" in several["message"]


@pytest.mark.parametrize("op", ["cache_rm", "cache_prune", "cache_clean", "eviction"])
async def test_what_is_pinned_meanwhile_stays(settings: Settings, op: str) -> None:
    """A pin that begins and ends while objects are dropped keeps all that it said it has."""
    async with open_engine(settings) as engine:
        answering, store = Service(engine), engine.store
        await fetched(engine, SPEC, OTHER)
        drop, pin = store.drop, partial(ask, answering, "pin", specs=[OTHER])

        def late(digest: str, **more: bool) -> int:
            if not store.pins():
                assert trio.from_thread.run(pin)["event"] == "result"
            return drop(digest, **more)

        with patch.object(store, "drop", late):
            if op == "eviction":
                await trio.to_thread.run_sync(store.evict, 0)
            else:
                await ask(answering, op, specs=[OTHER], older_than=0)
        (checked,) = (await ask(answering, "pin_check"))["pins"]
        assert checked["whole"], checked["missing"]


async def test_open_files_stay(settings: Settings) -> None:
    async with open_engine(settings) as engine:
        answering = Service(engine)
        await fetched(engine, SPEC)
        version = await engine.tree.version(parse_spec(SPEC))
        entry = version.manifest.file("part/two.safetensors")
        assert entry is not None
        with closing(await engine.fetcher.open(version, entry)):
            (item,) = (await ask(answering, "cache_rm", specs=[SPEC]))["specs"]
            assert item["freed"] == TOTAL - entry.size
            assert item["kept"] == [{"why": "open", "files": 1, "bytes": entry.size, "by": []}]
            found = await ask(answering, "cache_prune", older_than=0)
            assert (found["objects"], found["kept"]) == (0, 1)
            (item,) = (await ask(answering, "cache_versions"))["versions"]
            assert item["open"]
        assert (await ask(answering, "cache_prune", older_than=0))["freed"] == entry.size


async def test_prune_drops_what_no_version_has_and_on_request_more(settings: Settings) -> None:
    async with open_engine(settings) as engine:
        answering = Service(engine)
        with patch("axonfs.store.objects.time.time", return_value=time.time() - 7200):
            await fetched(engine, SPEC)
        await ask(answering, "pin", specs=[OTHER])
        version = await engine.tree.version(parse_spec(NEXT))
        entry = version.manifest.file("model.safetensors")
        assert entry is not None
        with closing(await engine.fetcher.open(version, entry)) as feed:
            await feed.need(Range(0, 1))
        assert (await ask(answering, "cache_prune"))["objects"] == 0
        plan = await ask(answering, "cache_prune_plan", incomplete=True)
        assert list(plan["why"]) == ["incomplete"]
        assert await ask(answering, "cache_prune", incomplete=True) == plan
        assert (await ask(answering, "cache_prune", older_than=10800))["objects"] == 0
        await trio.to_thread.run_sync(engine.store.drop_manifest, parse_spec(SPEC))
        await trio.to_thread.run_sync(engine.store.drop_manifest, parse_spec(NEXT))
        found = await ask(answering, "cache_versions")
        assert found["loose"] == {"objects": 2, "bytes": TOTAL - len(CONFIG)}
        pruned = await ask(answering, "cache_prune")
        assert (pruned["freed"], pruned["why"]) == (
            TOTAL - len(CONFIG),
            {"unreferenced": TOTAL - len(CONFIG)},
        )
        assert engine.store.usage() == 5 * CHUNK + len(CONFIG)


def test_the_commands(run: Run, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXONFS_REGISTRY", registry.url)
    assert run("cache", "ls").err == "the cache is empty\n"
    assert run("cache", "ls", "--json").out == "[]\n"
    assert run("pin", SPEC, NEXT, OTHER).code == 0
    assert run("unpin", SPEC, NEXT).code == 0
    assert run("cache", "ls", "--sort", "name").out.splitlines()[1].split()[:2] == [SPEC, "100"]
    sizes = json.loads(run("cache", "ls", "--sort", "size", "--json").out)
    assert [item["spec"] for item in sizes] == [SPEC, NEXT, OTHER]
    objects = json.loads(run("cache", "ls", "--objects", "--sort", "size", "--json").out)
    assert objects[0]["file"] == f"{SPEC} model.safetensors"
    assert {item["digest"] for item in objects} == {
        item["digest"] for item in json.loads(run("cache", "list", "--json").out)
    }
    dry = run("cache", "rm", SPEC, "--dry-run").out
    assert dry.startswith(f"{SPEC}: 2.5 MiB would be freed\n  kept 576 KiB in 2 files of {NEXT}")
    done = run("cache", "rm", SPEC)
    assert done.out == dry.replace("would be ", "")
    assert run("cache", "rm", SPEC).code == 1
    assert run("cache", "rm", OTHER).code == 1
    assert run("cache", "rm").code == 2
    late = run("cache", "prune", "--older-than", "1d")
    assert late.out == "0 B freed, 0 objects dropped\n"
    gone = json.loads(run("cache", "prune", "--older-than", "0s", "--json").out)
    assert gone["freed"] == NEW_WEIGHTS + SHARED - len(CONFIG)
    wrong = run("cache", "prune", "--older-than", "yesterday")
    assert (wrong.code, wrong.err) == (
        2,
        "axonfs: --older-than: 'yesterday' is not a duration; write it like 30d, 12h or 45m\n",
    )
