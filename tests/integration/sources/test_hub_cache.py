"""Hugging Face's own cache as a place of bytes: used before the network, and never believed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.fetch import arrivals
from axonfs.names import parse_spec
from axonfs.ranges import Range
from axonfs.sources import HubCache
from tests.support.fetching import CHUNK, rig, settled, without_tables
from tests.support.hub import HubServer, Repo, git_oid, sha256
from tests.support.registry import SPEC, RegistryServer, published
from tests.support.tinyhub import NAME, at

MIB = 1 << 20
LARGE, SMALL = bytes(range(256)) * (3 * MIB // 256) + b"end", b'{"a": 1}' * (MIB // 5)
FILES = {"model.safetensors": LARGE, "tokenizer.json": SMALL}


@pytest.fixture
def hub() -> Iterator[HubServer]:
    repo = Repo("acme/tiny", large=frozenset({"model.safetensors"}))
    repo.commit(FILES)
    with HubServer(repo) as server:
        yield server


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    """The blobs of a repository in a cache; another repository has none."""
    made = tmp_path / "hub/models--other--copy/blobs"
    made.mkdir(parents=True)
    (tmp_path / "hub/models--acme--tiny").mkdir()
    (tmp_path / "hub/version.txt").write_text("1")
    return made


async def test_what_is_there_is_not_asked_for(tmp_path: Path, hub: HubServer, blobs: Path) -> None:
    """Whichever repository it was downloaded for; by sha256 and by git blob id."""
    (blobs / sha256(LARGE)).write_bytes(LARGE)
    (blobs / git_oid(SMALL)).write_bytes(SMALL)
    async with rig(tmp_path / "c", hubs=at(hub), blobs=HubCache(tmp_path / "hub")) as parts:
        for path, body in FILES.items():
            assert await parts.content(path, NAME) == body
        figures = parts.fetcher.statistics()
        assert (figures["requests"], figures["bytes"]) == (0, 0)
        assert figures["copied"] == len(LARGE) + len(SMALL)
    assert not hub.asked("/resolve/")
    assert (blobs / sha256(LARGE)).read_bytes() == LARGE


@pytest.mark.parametrize("damage", ["flipped", "short", "directory", "loop"])
async def test_a_blob_that_lies_is_not_served(
    tmp_path: Path, hub: HubServer, blobs: Path, damage: str
) -> None:
    for name, body in ((sha256(LARGE), LARGE), (git_oid(SMALL), SMALL)):
        path = blobs / name
        if damage == "flipped":
            path.write_bytes(b"!" + body[1:])
        elif damage == "short":
            path.write_bytes(body[:-1])
        elif damage == "directory":
            path.mkdir()
        else:
            path.symlink_to(path)
    async with rig(tmp_path / "c", hubs=at(hub), blobs=HubCache(tmp_path / "hub")) as parts:
        for name, body in FILES.items():
            assert await parts.content(name, NAME) == body
    assert len(hub.asked("/resolve/")) == 2


async def test_a_blob_that_changes_after_it_was_compared(
    tmp_path: Path, hub: HubServer, blobs: Path
) -> None:
    """What was read from it stays; the rest comes from the hub, each chunk still compared."""
    blob = blobs / sha256(LARGE)
    blob.write_bytes(LARGE)
    async with rig(tmp_path / "c", hubs=at(hub), blobs=HubCache(tmp_path / "hub")) as parts:
        feed = await parts.open("model.safetensors", NAME)
        assert await parts.read(feed, 0, 10) == LARGE[:10]
        assert not hub.asked("/resolve/")
        blob.write_bytes(b"!" * len(LARGE))
        assert await parts.read(feed) == LARGE
        assert len(hub.asked("/resolve/")) == 1
        feed.close()


async def test_a_blob_that_vanishes(tmp_path: Path, hub: HubServer, blobs: Path) -> None:
    blob = blobs / sha256(LARGE)
    blob.write_bytes(LARGE)
    async with rig(tmp_path / "c", hubs=at(hub), blobs=HubCache(tmp_path / "hub")) as parts:
        feed = await parts.open("model.safetensors", NAME)
        assert await parts.read(feed, 0, 10) == LARGE[:10]
        os.unlink(blob)
        assert await parts.read(feed) == LARGE
        feed.close()


async def test_a_registry_s_objects_too(tmp_path: Path, blobs: Path) -> None:
    """With a chunk table, each chunk is compared as it is read: no first pass over the blob."""
    sizes = {"model.safetensors": 5 * CHUNK + 3}
    for number, tables in enumerate((True, False)):
        registry = published(tmp_path / str(number), sizes, chunk_size=CHUNK, seed=number)
        if not tables:
            without_tables(registry)
        with RegistryServer(registry) as server:
            async with rig(
                tmp_path / f"c{number}", server.url, blobs=HubCache(tmp_path / "hub")
            ) as parts:
                version = await parts.tree.version(parse_spec(SPEC))
                entry = version.manifest.file("model.safetensors")
                assert entry is not None
                body = next((registry / "objects").rglob(entry.digest)).read_bytes()
                lying = body[: 4 * CHUNK] + bytes(len(body) - 4 * CHUNK)
                (blobs / entry.digest).write_bytes(lying if tables else body)
                assert await parts.content("model.safetensors", SPEC) == body
                await settled(parts.idle)
                assert bool(server.paths("/objects/")) == tables


async def test_what_a_blob_gave_before_it_lied_came_from_this_machine(
    tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "MOMENT", 3600.0)  # the trio thread learns of all at the end
    registry = published(tmp_path / "www", {"model.safetensors": 5 * CHUNK}, chunk_size=CHUNK)
    with RegistryServer(registry) as server:
        async with rig(tmp_path / "c", server.url, blobs=HubCache(tmp_path / "hub")) as parts:
            feed = await parts.open()
            digest = feed.entry.digest
            body = next((registry / "objects").rglob(digest)).read_bytes()
            (blobs / digest).write_bytes(body[: 4 * CHUNK] + bytes(CHUNK))
            await feed.need(Range(0, 5), urgent=False)
            feed.close()
            figures = parts.fetcher.statistics()
    assert (figures["copied"], figures["bytes"]) == (4 * CHUNK, CHUNK)


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert repr(HubCache.configured()) == f"<HubCache {tmp_path}/.cache/huggingface/hub>"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert repr(HubCache.configured()) == "<HubCache /xdg/huggingface/hub>"
    monkeypatch.setenv("HF_HOME", "/home/hf")
    assert repr(HubCache.configured()) == "<HubCache /home/hf/hub>"
    monkeypatch.setenv("HF_HUB_CACHE", "/blobs")
    assert repr(HubCache.configured()) == "<HubCache /blobs>"
