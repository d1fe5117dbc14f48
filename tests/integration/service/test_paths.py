"""The directory of hard links of a pinned version: what `axonfs path` makes, and when it goes."""

from __future__ import annotations

import mmap
import os
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from axonfs.engine import open_engine
from axonfs.names import parse_spec
from axonfs.service import Service
from axonfs.settings.settings import Settings
from axonfs.store import Pin, Store
from axonfs.store.metadata import Metadata
from tests.integration.service.conftest import CHUNK, SIZES, service
from tests.support.commands import ask, everything
from tests.support.registry import SPEC, RegistryServer
from tests.support.stores import backing_file

MODEL = "model.safetensors"


@pytest.fixture
async def answering(settings: Settings) -> AsyncIterator[Service]:
    """A service with the version pinned."""
    async with service(settings) as answering:
        assert "pins" in await ask(answering, "pin", specs=[SPEC])
        yield answering


async def directory(answering: Service, spec: str = SPEC) -> Path:
    answer = await ask(answering, "path", spec=spec)
    assert answer["event"] == "result", answer
    return Path(answer["path"])


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def backing(settings: Settings, found: dict[str, Any], path: str) -> Path:
    (digest,) = [item["sha256"] for item in found["files"] if item["path"] == path]
    return backing_file(settings.cache, digest)


async def test_it_has_the_files_of_the_version(
    answering: Service, settings: Settings, registry: RegistryServer, tmp_path: Path
) -> None:
    asked = len(registry.requests)
    place = await directory(answering, "nlp/tiny")
    assert place == settings.cache / "pinned/nlp/tiny@1.0.0"
    assert len(registry.requests) == asked
    published = contents(tmp_path / "models/nlp/tiny/1.0.0")
    raw = (tmp_path / f"registry/api/v1/models/{SPEC.replace('@', '/')}/manifest.yaml").read_bytes()
    assert contents(place) == published | {"manifest.yaml": raw}
    found = (await ask(answering, "info", spec=SPEC))["version"]
    assert (place / MODEL).samefile(backing(settings, found, MODEL))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in place.rglob("*") if path.is_file()}
    assert modes == {0o444}
    assert stat.S_IMODE(place.stat().st_mode) == stat.S_IMODE((place / "part").stat().st_mode)
    assert stat.S_IMODE(place.stat().st_mode) == 0o755
    assert stat.S_IMODE((settings.cache / "pinned").stat().st_mode) == 0o700


async def test_it_is_brought_up_to_date_in_place(
    answering: Service, settings: Settings, tmp_path: Path
) -> None:
    place = await directory(answering)
    want, inode = contents(place), place.stat().st_ino
    linked = (place / MODEL).stat()
    (place / "config.json").unlink()
    (place / "config.json").write_text("another editor's")
    (place / "manifest.yaml").unlink()
    (place / "own/deep").mkdir(parents=True)
    (place / "part").chmod(0o777)
    (place.parent).chmod(0o700)
    (place / "own/link").symlink_to(tmp_path)
    os.unlink(place / "empty.txt")
    (place / "empty.txt").mkdir()
    assert await directory(answering) == place
    assert (contents(place), place.stat().st_ino) == (want, inode)
    assert os.path.samestat((place / MODEL).stat(), linked)
    assert not (place / "own").exists()
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (place / "part", place.parent)} == {
        0o755
    }
    assert (tmp_path / "registry").exists()


@pytest.mark.parametrize("name", ["part", ".", ".."])
async def test_a_symlink_in_it_leads_nowhere(
    answering: Service, settings: Settings, tmp_path: Path, name: str
) -> None:
    """As a container leaves it that writes to the directory: it has names outside changed."""
    place = await directory(answering)
    want, folder, victim = contents(place), (place / name).resolve(), tmp_path / "victim"
    for path in ("two.safetensors", "part/two.safetensors", "tiny@1.0.0/part/two.safetensors"):
        (victim / path).parent.mkdir(parents=True, exist_ok=True)
        (victim / path).write_text("precious")
    before = contents(victim)
    shutil.rmtree(folder)
    folder.symlink_to(victim)
    assert await directory(answering) == place
    assert (contents(victim), contents(place)) == (before, want)
    shutil.rmtree(folder)
    folder.symlink_to(victim)
    await ask(answering, "unpin", specs=[SPEC])
    assert contents(victim) == before
    if name != "part":
        assert not any((settings.cache / "pinned").iterdir())


@pytest.mark.parametrize("name", [".draft", "nlp", "nlp/tiny@1.0.0"])
@pytest.mark.parametrize("kind", ["directory", "file", "pipe"])
async def test_what_another_program_put_in_the_way_goes(
    settings: Settings, name: str, kind: str
) -> None:
    obstacle = settings.cache / "pinned" / name
    async with service(settings) as answering:
        await ask(answering, "pin", specs=[SPEC])
        want = contents(await directory(answering))
    shutil.rmtree(settings.cache / "pinned")
    obstacle.parent.mkdir(parents=True, mode=0o700)
    if kind == "directory":
        (obstacle / "inner").mkdir(parents=True)
    elif kind == "file":
        obstacle.write_text("another program's")
    else:
        os.mkfifo(obstacle)
    async with service(settings) as answering:
        assert contents(await directory(answering)) == want
        await trio.to_thread.run_sync(answering._engine.store.sweep)
        assert not answering._engine.store.health.fault
        assert os.listdir(settings.cache / "pinned") == ["nlp"]


async def test_a_kill_leaves_no_file_writable(answering: Service) -> None:
    """An owner who is not root makes a linked file writable for a moment, to open it."""
    place = await directory(answering)
    for path in (MODEL, "manifest.yaml"):
        (place / path).chmod(0o600)
    assert await directory(answering) == place
    assert {stat.S_IMODE((place / path).stat().st_mode) for path in (MODEL, "manifest.yaml")} == {
        0o444
    }


async def test_a_fifo_in_it_holds_nothing_up(answering: Service) -> None:
    place = await directory(answering)
    want = contents(place)
    for path in ("manifest.yaml", "empty.txt", MODEL):
        (place / path).unlink()
        os.mkfifo(place / path)
    with trio.fail_after(10):
        assert contents(await directory(answering)) == want


@pytest.mark.parametrize(
    ("op", "request_"),
    [
        ("unpin", {"specs": [SPEC]}),
        ("unpin", {"specs": [SPEC], "drop": True}),
        ("cache_clean", {"all": True}),
    ],
)
async def test_it_goes_with_the_pin(
    answering: Service, settings: Settings, op: str, request_: dict[str, Any]
) -> None:
    place = await directory(answering)
    with (place / MODEL).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=1) as mapping:
        want = mapping[:]
        assert (await ask(answering, op, **request_))["event"] == "result"
        assert not any((settings.cache / "pinned").iterdir())
        await ask(answering, "cache_clean")
        assert (await ask(answering, "cache_stats"))["stats"]["used"] == 0
        assert mapping[:] == want
    gone = await ask(answering, "path", spec=SPEC)
    assert gone["message"] == (
        f"{SPEC}: is not pinned; run axonfs pin {SPEC} first,"
        f" or read it in the mount: axonfs path --mounted {SPEC}"
    )


async def test_the_file_of_a_link_is_never_cut(answering: Service, settings: Settings) -> None:
    place = await directory(answering)
    store: Store = answering._engine.store
    stored = store.manifest(parse_spec(SPEC))
    assert stored is not None
    entry = stored.manifest.file(MODEL)
    assert entry is not None
    with (place / MODEL).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=1) as mapping:
        want = mapping[:]
        await ask(answering, "unpin", specs=[SPEC])
        known = store.object(entry)
        known.hold()
        assert known.punch(0, known.count) == 0
        assert known.present(0, known.count)
        known.discard()
        assert known.present_bytes == 0
        known.release()
        assert mapping[:] == want
        await ask(answering, "pin", specs=[SPEC])
        again = (await directory(answering) / MODEL).stat()
        assert os.path.samestat(again, os.fstat(file.fileno()))
        assert mapping[:] == want


async def test_a_pin_that_is_not_complete(answering: Service, settings: Settings) -> None:
    place = await directory(answering)
    with (place / MODEL).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=1) as mapping:
        want = mapping[:]
        # As root does who writes through the link.
        with (place / MODEL).open("r+b") as written:
            written.seek(3 * CHUNK)
            written.write(b"rot")
        (bad,) = (await ask(answering, "verify"))["bad"]
        assert (bad["path"], bad["chunks"], bad["repaired"]) == (MODEL, 1, False)
        refused = await ask(answering, "path", spec=SPEC)
        assert refused["message"] == (
            f"{SPEC} {MODEL}: is not complete: 64 KiB of 2.5 MiB are missing;"
            f" axonfs pin {SPEC} fetches what is missing"
        )
        (pin,) = (await ask(answering, "pin", specs=[SPEC]))["pins"]
        assert pin["fetched"] == CHUNK
        assert await directory(answering) == place
        assert mapping[:] == want, "the bytes below the mapping are repaired"


async def test_a_pin_of_some_files(settings: Settings) -> None:
    async with service(settings) as answering:
        await ask(answering, "pin", specs=[SPEC], include=["*.json"])
        *notes, answer = await everything(answering, "path", spec=SPEC)
        place = Path(answer["path"])
        assert sorted(contents(place)) == ["config.json", "manifest.yaml"]
        assert notes[-1]["text"] == f"{SPEC} is pinned in part: 1 of its {len(SIZES) + 1} files"
        await ask(answering, "pin", specs=[SPEC])
        assert len(contents(await directory(answering))) == len(SIZES) + 2


async def test_what_a_kill_left_is_removed(settings: Settings, tmp_path: Path) -> None:
    async with service(settings) as answering:
        await ask(answering, "pin", specs=[SPEC])
        place = await directory(answering)
    with closing(Store.open(settings.cache)) as store:
        Metadata.drop_pin(store, parse_spec(SPEC))  # and no more: then it was killed
        (settings.cache / "pinned/.draft").hardlink_to(place / MODEL)  # as during `make`
        store.sweep()
        assert not any((settings.cache / "pinned").iterdir())


def test_no_directory_is_inside_another_one(tmp_path: Path) -> None:
    outer, inner = map(parse_spec, ("nlp/tiny@2.0.0", "nlp/tiny/2.0.0@config.json"))
    with closing(Store.open(tmp_path / "cache")) as store:
        for spec in (outer, inner):
            store.put_pin(Pin(spec, "", (), 1.0, True))
        places = [store.links.make(spec, {"config.json": b"{}"}) for spec in (outer, inner)]
        store.drop_pin(outer)
        assert [place is not None and place.exists() for place in places] == [False, True]


async def test_a_file_system_without_hard_links(
    answering: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise PermissionError(1, "Operation not permitted", "x")

    monkeypatch.setattr(os, "link", refuse)
    refused = await ask(answering, "path", spec=SPEC)
    assert "hard links: Operation not permitted" in refused["message"]
    assert refused["message"].endswith(f"in the mount: axonfs path --mounted {SPEC}")


async def test_offline_and_after_a_restart(settings: Settings, registry: RegistryServer) -> None:
    async with service(settings) as answering:
        await ask(answering, "pin", specs=[SPEC])
        place = await directory(answering)
    registry.__exit__()
    try:
        async with open_engine(replace(settings, offline=True)) as engine:
            assert await directory(Service(engine), "nlp/tiny@^1") == place
    finally:
        registry.__enter__()
