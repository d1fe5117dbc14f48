"""ModelScope by the same interface: commits that it does not name, sha256 for every file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from axonfs.errors import AccessDeniedError, CorruptError, MalformedError, NotFoundError
from axonfs.http_client import Documents
from axonfs.names import parse_spec
from axonfs.sources import Hub
from axonfs.sources.modelscope import CUT_OFF, ModelScope, endpoint
from axonfs.store import Store
from tests.support.fetching import rig
from tests.support.hub import Repo, sha256
from tests.support.modelscope import DATE, ModelScopeServer

NAME = "modelscope/acme/tiny"
FILES = {
    "README.md": b"# Tiny\n",
    "configuration.json": b"{}\n",
    "model.safetensors": bytes(range(256)) * 9000,
    "sub/a b.txt": b"a name that is quoted\n",
}


@pytest.fixture
def repo() -> Repo:
    first = {"README.md": b"# Tiny\n"}
    large = frozenset({"model.safetensors"})
    return Repo.tagged(FILES, large, first=first, branch="master", tag="v1.0.0")


@pytest.fixture
def hub(repo: Repo) -> Iterator[ModelScopeServer]:
    with ModelScopeServer(repo) as server:
        yield server


def at(
    hub: ModelScopeServer, token: str | None = None
) -> Callable[[Documents, Store], dict[str, Hub]]:
    return lambda documents, store: {
        "modelscope": ModelScope(hub.url, documents, token, cache=store)
    }


async def test_files_and_bytes(tmp_path: Path, hub: ModelScopeServer, repo: Repo) -> None:
    master = repo.branches["master"]
    async with rig(tmp_path, hubs=at(hub)) as parts:
        version = await parts.tree.version(parse_spec(NAME))
        assert str(version.spec) == f"{NAME}@{master}"
        assert version.manifest.license == "mit"
        assert version.manifest.created == DATE + 1
        listed = {entry.path: (entry.size, entry.digest) for entry in version.manifest.files}
        assert listed == {path: (len(body), sha256(body)) for path, body in FILES.items()}
        assert not [path for path, _ in hub.requests if "FilePath" in path]
        for path, body in FILES.items():
            assert await parts.content(path, NAME) == body
            assert await parts.content(path, f"{NAME}@{master}") == body
        old = await parts.tree.version(parse_spec(f"{NAME}@v1.0.0"))
        assert old.spec.version == repo.tags["v1.0.0"]
        assert (await parts.tree.versions(NAME)).latest == master


async def test_a_branch_that_moves_leaves_what_was_listed(
    tmp_path: Path, hub: ModelScopeServer, repo: Repo
) -> None:
    """Bytes are asked for by commit."""
    old = repo.branches["master"]
    async with rig(tmp_path, hubs=at(hub)) as parts:
        await parts.tree.version(parse_spec(NAME))
        new = repo.commit({"configuration.json": b"{ }\n"}, "master")
        for path, body in FILES.items():
            assert await parts.content(path, f"{NAME}@{old}") == body
        parts.tree.invalidate()
        assert (await parts.tree.versions(NAME, fresh=True)).latest == new


async def test_an_altered_file(tmp_path: Path, hub: ModelScopeServer) -> None:
    hub.altered["README.md"] = b"# Tony\n"
    async with rig(tmp_path, hubs=at(hub)) as parts:
        with pytest.raises(CorruptError):
            await parts.content("README.md", NAME)


async def test_names_that_do_not_exist(tmp_path: Path, hub: ModelScopeServer) -> None:
    async with rig(tmp_path, hubs=at(hub)) as parts:
        for text in (f"{NAME}@none", "modelscope/acme/none", "modelscope/none"):
            with pytest.raises(NotFoundError):
                await parts.tree.version(parse_spec(text))


async def test_a_token(tmp_path: Path, repo: Repo) -> None:
    with ModelScopeServer(repo, "ms-secret") as hub:
        async with rig(tmp_path / "none", hubs=at(hub)) as parts:
            with pytest.raises(AccessDeniedError, match="MODELSCOPE_API_TOKEN") as caught:
                await parts.tree.version(parse_spec(NAME))
            assert f"{hub.url}/models/acme/tiny" in str(caught.value)
        async with rig(tmp_path / "one", hubs=at(hub, "ms-secret")) as parts:
            assert await parts.content("README.md", NAME) == FILES["README.md"]


async def test_search(tmp_path: Path, hub: ModelScopeServer) -> None:
    async with rig(tmp_path, hubs=at(hub)) as parts:
        (found,) = await parts.tree.hubs["modelscope"].search("tiny")
        assert str(found.spec) == f"{NAME}@master"
        assert found.description == "42 downloads"
        assert await parts.tree.hubs["modelscope"].search("other") == []


async def test_a_listing_that_is_cut_off_is_refused(
    tmp_path: Path, hub: ModelScopeServer, repo: Repo
) -> None:
    """A model with some of its files missing would look whole."""
    repo.commit({f"{n}.txt": b"" for n in range(CUT_OFF)}, "master")
    async with rig(tmp_path, hubs=at(hub)) as parts:
        with pytest.raises(MalformedError, match=str(CUT_OFF)):
            await parts.tree.version(parse_spec(NAME))


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELSCOPE_ENDPOINT", raising=False)
    monkeypatch.delenv("MODELSCOPE_DOMAIN", raising=False)
    assert endpoint() == "https://modelscope.cn"
    monkeypatch.setenv("MODELSCOPE_DOMAIN", "www.modelscope.ai")
    assert endpoint() == "https://www.modelscope.ai"
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:1")
    assert endpoint() == "http://127.0.0.1:1"
