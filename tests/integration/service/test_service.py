"""What commands ask for, against a real store, a real registry and no mount."""

from __future__ import annotations

from contextlib import aclosing, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from axonfs.engine import open_engine
from axonfs.names import parse_spec
from axonfs.ranges import Range
from axonfs.service import Service
from axonfs.settings.settings import Settings
from tests.integration.service.conftest import CHUNK, SIZES, TOTAL, service
from tests.support.commands import ask, everything
from tests.support.registry import SPEC, RegistryServer, published
from tests.support.stores import backing_file

Event = dict[str, Any]


def objects_requested(registry: RegistryServer) -> int:
    return len(registry.paths("/objects/"))


async def test_an_unknown_request_is_wrong_usage(settings: Settings) -> None:
    async with service(settings) as answering:
        answer = await ask(answering, "explode\x1b[2J")
    assert (answer["event"], answer["exit_code"]) == ("error", 2)
    assert "\x1b" not in answer["message"]


async def test_pin_fetches_everything_once_and_proves_it(
    settings: Settings, registry: RegistryServer
) -> None:
    async with service(settings) as answering:
        events = await everything(answering, "pin", specs=["nlp/tiny"])
        (pin,) = events[-1]["pins"]
        assert pin["spec"] == SPEC
        assert (pin["files"], pin["total"], pin["fetched"]) == (4, TOTAL, TOTAL)
        progress = [event for event in events if event["event"] == "progress"]
        done = [event["done"] for event in progress]
        assert done == sorted(done)
        assert progress[-1]["done"] == progress[-1]["total"] == TOTAL
        assert registry.bytes_sent < TOTAL * 1.2  # and the lists and tables

        before = objects_requested(registry)
        (again,) = (await ask(answering, "pin", specs=[SPEC]))["pins"]
        assert again["fetched"] == 0
        assert objects_requested(registry) == before
        (checked,) = (await ask(answering, "pin_check"))["pins"]
        assert checked["whole"]
        assert checked["missing"] == []


async def test_a_pin_needs_no_registry_afterwards(
    settings: Settings, registry: RegistryServer
) -> None:
    async with service(settings) as answering:
        await ask(answering, "pin", specs=[SPEC])
    offline = replace(settings, offline=True)
    asked = len(registry.requests)
    async with service(offline) as answering:
        assert (await ask(answering, "pin_check", specs=["nlp/tiny"]))["pins"][0]["whole"]
        assert (await ask(answering, "pin", specs=[SPEC]))["event"] == "result"
        assert (await ask(answering, "info", spec=SPEC))["version"]["local"] == TOTAL
        assert (await ask(answering, "verify", specs=[]))["bad"] == []
        assert len((await ask(answering, "search", query="tiny"))["models"]) == 1
    assert len(registry.requests) == asked


async def test_a_pin_of_a_part_grows_and_never_shrinks(
    settings: Settings, registry: RegistryServer
) -> None:
    async with service(settings) as answering:
        (pin,) = (await ask(answering, "pin", specs=[SPEC], include=["part/"]))["pins"]
        assert (pin["files"], pin["total"]) == (1, 9 * CHUNK)
        assert (await ask(answering, "pin_check"))["pins"][0]["whole"]
        (whole,) = (await ask(answering, "pin_check", specs=[SPEC], include=["*"]))["pins"]
        assert not whole["whole"]
        assert {item["path"] for item in whole["missing"]} == {
            "model.safetensors",
            "config.json",
            "empty.txt",
        }
        (more,) = (await ask(answering, "pin", specs=[SPEC], exclude=["*.safetensors"]))["pins"]
        assert more["files"] == 2
        (both,) = (await ask(answering, "pin_check"))["pins"]
        assert both["files"] == 3
        nothing = await ask(answering, "pin", specs=[SPEC], include=["*.gguf"])
        assert "no file matches *.gguf" in nothing["message"]


async def test_pin_check_names_what_is_missing(settings: Settings) -> None:
    async with service(settings) as answering:
        (unpinned,) = (await ask(answering, "pin_check", specs=[SPEC]))["pins"]
        assert unpinned["missing"] == [{"path": "", "why": "is not pinned"}]
        await ask(answering, "pin", specs=[SPEC])
        info = (await ask(answering, "info", spec=SPEC))["version"]
    digest = next(item["sha256"] for item in info["files"] if item["path"] == "model.safetensors")
    backing_file(settings.cache, digest).unlink()
    async with service(replace(settings, offline=True)) as answering:
        (checked,) = (await ask(answering, "pin_check"))["pins"]
    assert not checked["whole"]
    assert [item["path"] for item in checked["missing"]] == ["model.safetensors"]


async def test_a_pin_that_does_not_fit_is_refused_before_a_byte_is_fetched(
    settings: Settings, registry: RegistryServer
) -> None:
    small = replace(settings, cache_size=10 * CHUNK)
    async with service(small) as answering:
        answer = await ask(answering, "pin", specs=[SPEC])
        assert (await ask(answering, "list"))["models"] == []
    assert answer["exit_code"] == 1
    assert "only 640 KiB is available within the cache limit of 640 KiB" in answer["message"]
    assert objects_requested(registry) == 0


async def test_what_can_be_evicted_counts_as_room(
    settings: Settings, tmp_path: Path, registry: RegistryServer
) -> None:
    published(tmp_path, {"w.bin": 30 * CHUNK}, spec="nlp/other@1.0.0", seed=7, chunk_size=CHUNK)
    small = replace(settings, cache_size=60 * CHUNK)
    async with service(small) as answering:
        await ask(answering, "pin", specs=["nlp/other@1.0.0"])
        refused = await ask(answering, "pin", specs=[SPEC])
        assert "unpin something" in refused["message"]
        await ask(answering, "unpin", specs=["nlp/other"])
        answer = await ask(answering, "pin", specs=[SPEC])
        assert answer["event"] == "result", answer
        assert (await ask(answering, "pin_check"))["pins"][0]["whole"]


async def test_an_interrupted_pin_goes_on_where_it_stopped(
    settings: Settings, registry: RegistryServer
) -> None:
    async with service(replace(settings, streams=1)) as answering:
        async with aclosing(answering.handle({"op": "pin", "specs": [SPEC]})) as events:
            async for event in events:
                if event["event"] == "progress" and event["done"]:
                    break
        (item,) = (await ask(answering, "list"))["models"]
        assert item["pinned"] == "incomplete"
        assert item["local"] > 0
    async with service(settings) as answering:
        (item,) = (await ask(answering, "list"))["models"]
        (pin,) = (await ask(answering, "pin", specs=[SPEC]))["pins"]
        assert pin["fetched"] == TOTAL - item["local"]
        assert (await ask(answering, "list"))["models"][0]["pinned"] == "complete"


async def test_a_registry_that_goes_away_fails_the_pin_with_the_file(
    settings: Settings, registry: RegistryServer
) -> None:
    async with service(replace(settings, deadline=1)) as answering:
        await ask(answering, "info", spec=SPEC)
        registry.__exit__(None, None, None)
        answer = await ask(answering, "pin", specs=[SPEC])
        registry.__enter__()
    assert answer["event"] == "error"
    assert SPEC in answer["message"]
    assert ".safetensors" in answer["message"] or "config.json" in answer["message"]


async def test_unpin_keeps_the_bytes_and_drop_takes_them(settings: Settings) -> None:
    async with service(settings) as answering:
        await ask(answering, "pin", specs=[SPEC])
        (kept,) = (await ask(answering, "unpin", specs=["nlp/tiny"]))["specs"]
        assert kept == {"spec": SPEC, "was_pinned": True, "freed": 0}
        assert (await ask(answering, "list"))["models"][0]["pinned"] == ""
        (dropped,) = (await ask(answering, "unpin", specs=[SPEC], drop=True))["specs"]
        assert dropped == {"spec": SPEC, "was_pinned": False, "freed": TOTAL}
        assert (await ask(answering, "list"))["models"] == []
        missing = await ask(answering, "unpin", specs=["nlp/tiny"])
        assert "no version of it is pinned" in missing["message"]


async def test_drop_keeps_what_another_pin_shares(settings: Settings, tmp_path: Path) -> None:
    published(tmp_path, SIZES | {"new.bin": CHUNK}, spec="nlp/tiny@2.0.0", chunk_size=CHUNK)
    async with service(settings) as answering:
        await ask(answering, "pin", specs=[SPEC, "nlp/tiny@2.0.0"])
        ambiguous = await ask(answering, "unpin", specs=["nlp/tiny"])
        assert "1.0.0, 2.0.0" in ambiguous["message"]
        await ask(answering, "unpin", specs=["nlp/tiny@2.0.0"], drop=True)
        assert (await ask(answering, "pin_check"))["pins"][0]["whole"]
        assert (await ask(answering, "cache_stats"))["stats"]["used"] >= TOTAL


async def test_two_versions_side_by_side_share_their_objects(
    settings: Settings, tmp_path: Path, registry: RegistryServer
) -> None:
    published(tmp_path, SIZES | {"new.bin": CHUNK}, spec="nlp/tiny@1.1.0", chunk_size=CHUNK)
    async with service(settings) as answering:
        await ask(answering, "pin", specs=[SPEC])
        sent, used = registry.bytes_sent, (await ask(answering, "cache_stats"))["stats"]["used"]
        (pin,) = (await ask(answering, "pin", specs=["nlp/tiny@1.1.0"]))["pins"]
        assert (pin["total"], pin["fetched"]) == (TOTAL + CHUNK, CHUNK)
        stats = (await ask(answering, "cache_stats"))["stats"]
        assert (stats["objects"], stats["used"] - used) == (4, CHUNK)  # an empty file needs none
        assert registry.bytes_sent - sent < 2 * CHUNK  # the new file, its table and the lists
        assert len((await ask(answering, "list"))["models"]) == 2


async def test_a_version_that_only_shares_bytes_is_not_one_that_is_here(
    settings: Settings, tmp_path: Path
) -> None:
    published(tmp_path, SIZES | {"new.bin": CHUNK}, spec="nlp/tiny@1.1.0", chunk_size=CHUNK)
    async with service(settings) as answering:
        await ask(answering, "pin", specs=[SPEC])
        assert (await ask(answering, "info", spec="nlp/tiny@1.1.0"))["version"]["local"] == TOTAL
        (item,) = (await ask(answering, "list"))["models"]
        assert item["spec"] == SPEC


async def test_dropping_what_is_not_here_is_an_error(settings: Settings) -> None:
    async with service(settings) as answering:
        gone = await ask(answering, "unpin", specs=["nlp/tiny@9.0.0"], drop=True)
        assert "nothing of it is local" in gone["message"]
        assert gone["exit_code"] == 1


def flip(settings: Settings, digest: str, offset: int) -> None:
    with backing_file(settings.cache, digest).open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0xFF]))


async def test_verify_finds_a_flipped_bit_and_repair_fetches_its_chunk_alone(
    settings: Settings, registry: RegistryServer
) -> None:
    async with service(settings) as answering:
        await ask(answering, "pin", specs=[SPEC])
        clean = await ask(answering, "verify", specs=[])
        assert (clean["files"], clean["bytes"], clean["bad"]) == (3, TOTAL, [])
        info = (await ask(answering, "info", spec=SPEC))["version"]
        digest = next(
            item["sha256"] for item in info["files"] if item["path"] == "model.safetensors"
        )
        flip(settings, digest, 5 * CHUNK + 7)
        (bad,) = (await ask(answering, "verify", specs=[SPEC]))["bad"]
        assert (bad["path"], bad["chunks"], bad["repaired"]) == ("model.safetensors", 1, False)
        (checked,) = (await ask(answering, "pin_check"))["pins"]
        assert checked["missing"] == [
            {"path": "model.safetensors", "why": "64 KiB of 2.5 MiB are missing"}
        ]
        assert (await ask(answering, "list"))["models"][0]["pinned"] == "incomplete"

        flip(settings, digest, 9 * CHUNK)
        sent = registry.bytes_sent
        (bad,) = (await ask(answering, "verify", specs=[SPEC], repair=True))["bad"]
        assert bad["repaired"]
        assert registry.bytes_sent - sent == CHUNK
        await ask(answering, "pin", specs=[SPEC])
        assert (await ask(answering, "pin_check"))["pins"][0]["whole"]
        assert registry.bytes_sent - sent == 2 * CHUNK


async def test_verify_of_what_is_not_local_says_so(settings: Settings) -> None:
    async with service(settings) as answering:
        answer = await ask(answering, "verify", specs=["nlp/never@1.0.0"])
    assert "nothing of it is local" in answer["message"]


async def test_cache_clean_spares_pins_and_what_is_open(settings: Settings, tmp_path: Path) -> None:
    published(tmp_path, {"w.bin": 3 * CHUNK}, spec="nlp/other@1.0.0", seed=7, chunk_size=CHUNK)
    async with open_engine(settings) as engine:
        answering = Service(engine)
        await ask(answering, "pin", specs=[SPEC, "nlp/other@1.0.0"])
        await ask(answering, "unpin", specs=["nlp/other"])
        clean = await ask(answering, "cache_clean")
        # config.json is the same file in both.
        assert (clean["freed"], clean["objects"], clean["unpinned"]) == (3 * CHUNK, 1, [])
        version = await engine.tree.version(parse_spec(SPEC))
        entry = version.manifest.file("part/two.safetensors")
        assert entry is not None
        with closing(await engine.fetcher.open(version, entry)) as feed:
            everything_else = await ask(answering, "cache_clean", all=True)
            assert everything_else["unpinned"] == [SPEC]
            assert everything_else["kept"] == 1
            assert feed.object.present(*Range(0, feed.object.count))
        assert (await ask(answering, "cache_stats"))["stats"]["used"] == 9 * CHUNK


async def test_the_lists_say_what_is_local_and_where(settings: Settings) -> None:
    async with service(settings, mountpoint="/models", cache=str(settings.cache)) as answering:
        assert (await ask(answering, "list"))["models"] == []
        await ask(answering, "pin", specs=[SPEC], include=["part/"])
        (item,) = (await ask(answering, "list"))["models"]
        assert item == {
            "spec": SPEC,
            "namespace": "nlp",
            "name": "tiny",
            "version": "1.0.0",
            "size": TOTAL,
            "local": 9 * CHUNK,
            "pinned": "complete",
            "path": "/models/nlp/tiny/1.0.0",
        }
        (version,) = (await ask(answering, "versions", model="nlp/tiny"))["versions"]
        assert version["local"] == 9 * CHUNK
        (listed,) = (await ask(answering, "cache_list"))["objects"]
        assert listed["file"] == f"{SPEC} part/two.safetensors"
        assert listed["pinned"]
        assert (await ask(answering, "status"))["status"]["mountpoint"] == "/models"


async def test_what_does_not_exist_is_said(settings: Settings) -> None:
    async with service(settings) as answering:
        for op, request in (
            ("versions", {"model": "nlp/never"}),
            ("info", {"spec": "nlp/never"}),
            ("pin", {"specs": ["nlp/tiny@9.9.9"]}),
        ):
            answer = await ask(answering, op, **request)
            assert (answer["event"], answer["exit_code"]) == ("error", 1)
            assert "no such" in answer["message"]


async def test_other_registries_for_one_request(settings: Settings, tmp_path: Path) -> None:
    other = published(tmp_path / "other", {"w.bin": 10}, spec="nlp/elsewhere@1.0.0")
    with RegistryServer(other) as server:
        async with service(settings) as answering:
            assert (await ask(answering, "search", query="elsewhere"))["models"] == []
            found = await ask(answering, "search", query="elsewhere", registries=[server.url])
            assert [item["spec"] for item in found["models"]] == ["nlp/elsewhere@1.0.0"]
            pinned = await ask(answering, "pin", specs=["nlp/elsewhere"], registries=[server.url])
            assert pinned["event"] == "result"


async def test_ten_requests_at_once_share_one_fetch(
    settings: Settings, registry: RegistryServer
) -> None:
    async with service(settings) as answering:
        answers: list[Event] = []

        async def one() -> None:
            answers.append(await ask(answering, "pin", specs=[SPEC]))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(one)
        assert [answer["event"] for answer in answers] == ["result"] * 10
    assert registry.bytes_sent < TOTAL * 1.2
