"""A hub's models through tree and fetcher: what is resolved, read, verified and refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from axonfs.catalog.search import search_registries
from axonfs.errors import (
    AxonError,
    CorruptError,
    NotFoundError,
    OfflineError,
)
from axonfs.names import parse_spec
from axonfs.vfs.paths import Paths
from axonfs.vfs.places import Alias, Directory, File, Folder
from tests.support.fetching import rig
from tests.support.hub import HubServer, Repo
from tests.support.tinyhub import FILES, MIB, NAME, at


async def test_every_byte_is_that_of_the_repository(tmp_path: Path, hub: HubServer) -> None:
    async with rig(tmp_path / "cache", hubs=at(hub)) as parts:
        for path, body in FILES.items():
            assert await parts.content(path, NAME) == body
        asked = len(hub.requests)
        for path, body in FILES.items():
            assert await parts.content(path, NAME) == body
        assert len(hub.requests) == asked
    async with rig(tmp_path / "cache", offline=True, hubs=at(hub)) as parts:
        for path, body in FILES.items():
            assert await parts.content(path, NAME) == body
        with pytest.raises(OfflineError):
            await parts.tree.version(parse_spec(f"{NAME}@v1.0"))
    assert len(hub.requests) == asked


async def test_a_small_file_that_was_altered_is_never_served(
    tmp_path: Path, hub: HubServer
) -> None:
    """Not even its first chunk, though nothing is wrong with that one alone."""
    body = FILES["tokenizer.json"]
    hub.altered["tokenizer.json"] = body[:-1] + b"!"
    async with rig(tmp_path, hubs=at(hub)) as parts:
        feed = await parts.open("tokenizer.json", NAME)
        assert feed.object.count > 1
        with pytest.raises(CorruptError, match="git blob id"):
            await parts.read(feed, 0, 10)
        assert feed.object.present_bytes == 0
        assert not feed.present(0, 1)
        feed.close()
        with pytest.raises(CorruptError):
            await parts.content("tokenizer.json", NAME)


async def test_a_large_file_that_was_altered_is_dropped(tmp_path: Path, hub: HubServer) -> None:
    hub.altered["onnx/model.onnx"] = b"ONNX" * 5000
    async with rig(tmp_path, hubs=at(hub)) as parts:
        with pytest.raises(CorruptError, match="sha256"):
            await parts.content("onnx/model.onnx", NAME)


async def test_ranges_of_a_large_file_ask_the_hub_once(tmp_path: Path, hub: HubServer) -> None:
    """It counts requests; where the bytes are is remembered until the storage refuses."""
    body = FILES["model.safetensors"]
    async with rig(tmp_path, hubs=at(hub)) as parts:
        feed = await parts.open("model.safetensors", NAME)
        assert await parts.read(feed, 0, 10) == body[:10]
        assert await parts.read(feed, MIB, MIB + 10) == body[MIB : MIB + 10]
        assert len(hub.asked("/resolve/")) == 1
        hub.expire()
        assert await parts.read(feed, 2 * MIB, 2 * MIB + 10) == body[2 * MIB : 2 * MIB + 10]
        assert len(hub.asked("/resolve/")) == 2
        assert len(hub.asked(origin="storage")) == 4
        feed.close()


async def test_whoever_asks_for_a_branch_hears_what_an_update_heard(
    tmp_path: Path, hub: HubServer, repo: Repo
) -> None:
    async with rig(tmp_path, hubs=at(hub)) as parts:
        branch = parse_spec(f"{NAME}@main")
        assert await parts.tree.target(branch) == repo.branches["main"]
        new = repo.commit(FILES)
        parts.tree.invalidate()
        assert (await parts.tree.versions(NAME, fresh=True)).latest == new
        assert await parts.tree.target(branch) == new
        assert await parts.tree.target(parse_spec(NAME)) == new


async def test_a_signed_url_that_is_refused_at_once_is_asked_for_again(
    tmp_path: Path, hub: HubServer
) -> None:
    hub.fail("/repos/ab/cd/", 403)
    async with rig(tmp_path, hubs=at(hub)) as parts:
        assert await parts.content("onnx/model.onnx", NAME) == FILES["onnx/model.onnx"]
    assert len(hub.asked("/resolve/")) == 2


async def test_too_many_requests_are_waited_out(tmp_path: Path, hub: HubServer) -> None:
    hub.fail("/revision/main", 429, Retry_After="0")
    hub.fail("/tree/", 429, Retry_After="0")
    hub.fail("/resolve/", 429, Retry_After="0")
    async with rig(tmp_path, hubs=at(hub)) as parts:
        assert await parts.content("config.json", NAME) == FILES["config.json"]


async def test_a_retry_after_is_honoured(tmp_path: Path, hub: HubServer) -> None:
    """An answer that comes later than the deadline is an error that says so."""
    hub.fail("/revision/main", 429, times=9, Retry_After="30")
    async with rig(tmp_path, hubs=at(hub)) as parts:
        with pytest.raises(AxonError, match="429") as caught:
            await parts.tree.version(parse_spec(NAME))
    assert caught.value.retry_after == 30
    assert len(hub.requests) == 1


async def test_two_commits_share_what_is_the_same(
    tmp_path: Path, hub: HubServer, repo: Repo
) -> None:
    """Under another name as well, and each can serve it."""
    repo.large |= {"moved.safetensors"}
    moved = dict(FILES, **{"moved.safetensors": FILES["model.safetensors"]})
    del moved["model.safetensors"]
    async with rig(tmp_path, hubs=at(hub)) as parts:
        feed = await parts.open("model.safetensors", NAME)
        assert await parts.read(feed, 0, 10) == FILES["model.safetensors"][:10]
        new = repo.commit(moved)
        other = await parts.open("moved.safetensors", f"{NAME}@{new}")
        assert other is feed
        hub.fail(f"{repo.resolve('main')}/", 500, times=0)
        hub.fail("/resolve/", 404)
        hub.expire()
        assert await parts.read(feed) == FILES["model.safetensors"]
        feed.close()
        other.close()


async def test_a_hub_that_is_down(tmp_path: Path, hub: HubServer, repo: Repo) -> None:
    """What was resolved once stays; what was not is an error, and no ENOENT."""
    async with rig(tmp_path / "cache", hubs=at(hub)) as parts:
        assert await parts.content("config.json", NAME) == FILES["config.json"]
    hub.fail("/", 503, times=100)
    async with rig(tmp_path / "cache", hubs=at(hub)) as parts:
        assert await parts.content("config.json", f"{NAME}@main") == FILES["config.json"]
        assert (await parts.tree.versions(NAME)).aliases == {"main": repo.branches["main"]}
        with pytest.raises(AxonError) as caught:
            await parts.tree.version(parse_spec("hf/acme/other"))
        assert not isinstance(caught.value, NotFoundError)


async def test_nothing_is_sent_before_a_model_is_named(tmp_path: Path, hub: HubServer) -> None:
    async with rig(tmp_path, hubs=at(hub)) as parts:
        await parts.tree.catalog()
        await parts.tree.local()
        await search_registries(parts.tree, "tiny")
    assert hub.requests == []


async def test_places_are_found_again_by_their_paths(
    tmp_path: Path, hub: HubServer, repo: Repo
) -> None:
    """As for a worker that takes over what an earlier one told the kernel."""
    main = repo.branches["main"]
    model = ("hf", "acme", "tiny")
    async with rig(tmp_path, hubs=at(hub)) as parts:
        await parts.tree.version(parse_spec(f"{NAME}@main"))
        asked = len(hub.requests)
        places = Paths(parts.tree, dict)
        assert await places.at(("hf",)) == Directory(("hf",))
        assert await places.at(model) == Directory(model)
        assert await places.at((*model, "main")) == Alias((*model, "main"), main)
        assert isinstance(await places.at((*model, main)), Folder)
        assert isinstance(await places.at((*model, main, "onnx")), Folder)
        found = await places.at((*model, main, "onnx", "model.onnx"))
        assert isinstance(found, File)
        assert found.entry.size == len(FILES["onnx/model.onnx"])
        assert len(hub.requests) == asked
        with pytest.raises(NotFoundError):
            await places.at((*model, main, "none"))


async def test_files_are_found_again_whose_manifest_was_dropped(
    tmp_path: Path, hub: HubServer, repo: Repo
) -> None:
    """The hub is asked for it, as it was when their names were looked up first."""
    main = repo.branches["main"]
    version = ("hf", "acme", "tiny", main)
    async with rig(tmp_path, hubs=at(hub)) as parts:
        await parts.tree.version(parse_spec(f"{NAME}@main"))
        assert parts.store.drop_manifest(parse_spec(f"{NAME}@{main}"))
    async with rig(tmp_path, hubs=at(hub)) as parts:
        places = Paths(parts.tree, dict)
        found = await places.at((*version, "onnx", "model.onnx"))
        assert isinstance(found, File)
        assert found.entry.size == len(FILES["onnx/model.onnx"])
        with pytest.raises(NotFoundError):
            await places.at((*version, "none", "deeper"))
