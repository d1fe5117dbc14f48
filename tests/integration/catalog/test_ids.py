"""What an id means beside several sources, and `.hub` where that is not easy to see in a mount."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from axonfs.catalog.ids import Ids
from axonfs.errors import AxonError, NotFoundError
from axonfs.names import Spec, view_folder, view_id
from axonfs.vfs.paths import Paths
from axonfs.vfs.places import Folder, Text
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import Gate, rig
from tests.support.hub import HubServer, Repo, sha256
from tests.support.registry import RegistryServer, published
from tests.support.tinyhub import FILES, LARGE, at

SIZES = {"weights.bin": 5000}


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    for number, spec in enumerate(
        ("nlp/tiny@1.0.0", "nlp/tiny@1.1.0", "nlp/org/deep@1", "nlp/a--b@1")
    ):
        made = published(tmp_path, SIZES, spec=spec, seed=number)
    return made


@pytest.fixture
def hub() -> Iterator[HubServer]:
    same = Repo("nlp/tiny")
    same.commit({"config.json": b"of the hub\n"})
    with HubServer(Repo.tagged(FILES, LARGE), same) as server:
        yield server


async def test_a_namespace_is_of_one_source(tmp_path: Path, registry: Path, hub: HubServer) -> None:
    with RegistryServer(registry) as server:
        async with rig(tmp_path / "cache", server.url, hubs=at(hub)) as parts:
            ids = Ids(parts.tree)
            assert await ids.model("nlp/tiny") == "nlp/tiny"
            assert await ids.model("nlp/none") == "nlp/none"
            assert await ids.model("acme/tiny") == "hf/acme/tiny"
            assert await ids.model("gpt2") == "hf/gpt2"
            assert await ids.known() == {"nlp/tiny"}
    assert hub.requests == []


async def test_a_registry_without_an_index(tmp_path: Path, registry: Path, hub: HubServer) -> None:
    """It is asked for the model, since nothing lists its namespaces."""
    (registry / "api/v1/index.json").unlink()
    with RegistryServer(registry) as server:
        async with rig(tmp_path / "cache", server.url, hubs=at(hub)) as parts:
            assert await Ids(parts.tree).model("nlp/tiny") == "nlp/tiny"
            assert await Ids(parts.tree).model("acme/tiny") == "hf/acme/tiny"


@pytest.mark.parametrize("local", [False, True])
async def test_a_registry_that_lost_its_index(
    tmp_path: Path, registry: Path, hub: HubServer, local: bool
) -> None:
    """As behind a gateway that answers 404 for all of it: the namespaces stay the registry's."""
    with RegistryServer(registry) as server:
        async with rig(tmp_path / "cache", server.url, hubs=at(hub)) as parts:
            await parts.tree.catalog()
            if local:
                await parts.tree.unchecked(Spec("hf", "nlp/tiny", "latest"))
        shutil.rmtree(registry / "api")
        for _ in range(2):
            async with rig(tmp_path / "cache", server.url, hubs=at(hub)) as parts:
                assert await Ids(parts.tree).model("nlp/tiny") == "nlp/tiny"
                assert await Ids(parts.tree).model("acme/tiny") == "hf/acme/tiny"


async def test_a_model_of_the_hub_that_is_local(
    tmp_path: Path, registry: Path, hub: HubServer
) -> None:
    """A look below `hf` does not give the id of a registry's model to the Hub."""
    (registry / "api/v1/index.json").unlink()
    with RegistryServer(registry) as server:
        async with rig(tmp_path / "cache", server.url, hubs=at(hub)) as parts:
            await parts.tree.unchecked(Spec("hf", "nlp/tiny", "latest"))
            await parts.tree.unchecked(Spec("hf", "acme/tiny", "latest"))
            assert await Ids(parts.tree).model("nlp/tiny") == "nlp/tiny"
            assert await Ids(parts.tree).model("acme/tiny") == "hf/acme/tiny"


@pytest.mark.parametrize("model_id", ["NLP/tiny", "Nlp/none"])
async def test_a_namespace_in_other_letters(
    tmp_path: Path, registry: Path, hub: HubServer, model_id: str
) -> None:
    """The Hub takes `NLP` and `nlp` for the same, so neither is looked up there."""
    with RegistryServer(registry) as server:
        async with rig(tmp_path / "cache", server.url, hubs=at(hub)) as parts:
            assert await Ids(parts.tree).model(model_id) == model_id
    assert hub.requests == []


async def test_a_registry_that_is_down(tmp_path: Path, registry: Path, hub: HubServer) -> None:
    """Once it has listed its models its namespaces are known; before, an id may be one of its."""
    with FaultyOrigin(registry) as origin:
        url = origin.url
    async with rig(tmp_path / "new", url, hubs=at(hub)) as parts:
        with pytest.raises(AxonError):
            await Ids(parts.tree).model("nlp/tiny")
        assert await Ids(parts.tree).model("gpt2") == "hf/gpt2"
    assert hub.requests == []
    with RegistryServer(registry) as server:
        async with rig(tmp_path / "cache", server.url, hubs=at(hub)) as parts:
            await parts.tree.catalog()
    async with rig(tmp_path / "cache", server.url, hubs=at(hub)) as parts:
        assert await Ids(parts.tree).model("acme/tiny") == "hf/acme/tiny"
        assert await Ids(parts.tree).model("nlp/tiny") == "nlp/tiny"


async def test_a_registry_that_is_slow(tmp_path: Path, registry: Path, hub: HubServer) -> None:
    """Its list is waited for, whatever another registry has said."""
    gate = Gate()
    other = published(tmp_path / "other", SIZES, spec="cv/only@1")
    with RegistryServer(other) as quick, FaultyOrigin(registry) as slow:
        slow.always(gate)
        async with rig(tmp_path / "cache", quick.url, slow.url, hubs=at(hub)) as parts:
            parts.tree.head_start = 0.1
            ids, found = Ids(parts.tree), list[str]()

            async def look_up() -> None:
                found.append(await ids.model("nlp/tiny"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(look_up)
                await gate.reached()
                assert (await parts.tree.catalog()).directory(()).children == {"cv"}
                gate.open.set()
            assert found == ["nlp/tiny"]
    assert hub.requests == []


async def test_without_hubs(tmp_path: Path, registry: Path) -> None:
    with RegistryServer(registry) as server:
        async with rig(tmp_path / "cache", server.url) as parts:
            assert await Ids(parts.tree).model("nlp/tiny") == "nlp/tiny"
            with pytest.raises(NotFoundError):
                await Ids(parts.tree).model("gpt2")


async def test_a_commit_that_is_not_local(tmp_path: Path, registry: Path) -> None:
    """It is found among the versions that the registry lists; an unknown one does not exist."""
    raw = (registry / "api/v1/models/nlp/tiny/1.0.0/manifest.yaml").read_bytes()
    path = (".hub", "models--nlp--tiny", "snapshots", sha256(raw)[:40])
    with RegistryServer(registry) as server:
        async with rig(tmp_path / "cache", server.url) as parts:
            paths = Paths(parts.tree, dict)
            assert await paths.local(path) is None
            found = await paths.at(path)
            assert isinstance(found, Folder)
            assert str(found.version.spec) == "nlp/tiny@1.0.0"
            assert await paths.local(path) == found
            with pytest.raises(NotFoundError):
                await paths.at((*path[:3], "0" * 40))
            ref = await paths.at((*path[:2], "refs", "main"))
            assert isinstance(ref, Text)
            assert len(ref.render()) == ref.size == 40


@pytest.mark.parametrize("model_id", ["org/name", "gpt2", "Qwen/Qwen3-0.6B", "a/b-c_d.e"])
def test_the_folder_of_an_id(model_id: str) -> None:
    folder = view_folder(model_id)
    assert folder == "--".join(["models", *model_id.split("/")])
    assert view_id(folder) == model_id


@pytest.mark.parametrize(
    "model_id", ["a/b/c", "a--b", "a-/b", "a/b.", "a/..b", "/a", "a/", "", "ü"]
)
def test_names_that_are_no_ids(model_id: str) -> None:
    assert view_folder(model_id) is None


@pytest.mark.parametrize("name", ["models--a---b", "models--a--b--c", "models--", "datasets--a"])
def test_names_that_are_no_folders(name: str) -> None:
    assert view_id(name) is None
