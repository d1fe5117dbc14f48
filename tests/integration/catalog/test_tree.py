"""The tree over real registries: what is listed, what resolves, what is kept when one is down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from axonfs.catalog.memo import MIN_AGE, TTL
from axonfs.catalog.search import search_registries
from axonfs.catalog.tree import Tree
from axonfs.errors import AxonError, MalformedError, NotFoundError, OfflineError
from axonfs.formats.listing import parse_index
from axonfs.names import parse_spec
from axonfs.vfs.paths import Paths
from axonfs.vfs.places import Directory
from tests.support import faulty
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import rig, settled
from tests.support.registry import RegistryServer, published

SIZES = {"weights.bin": 5000}


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    published(tmp_path, SIZES, spec="nlp/tiny@1.0.0")
    published(tmp_path, SIZES, spec="nlp/tiny@1.10.0", seed=1)
    return published(tmp_path, SIZES, spec="nlp/org/deep@0.1.0", seed=2)


@pytest.fixture
def second(tmp_path: Path) -> Iterator[RegistryServer]:
    """Another registry with a version of the same name but other bytes, and one of its own."""
    published(tmp_path / "second", SIZES, spec="nlp/tiny@1.0.0", seed=50)
    with RegistryServer(published(tmp_path / "second", SIZES, spec="cv/only@2.0.0")) as server:
        yield server


@pytest.fixture
def plain(registry: Path) -> Iterator[FaultyOrigin]:
    """The registry as Axon's: manifests and objects, but nothing that lists them."""
    (registry / "api/v1/index.json").unlink()
    for path in registry.glob("api/v1/models/**/versions.json"):
        path.unlink()
    with FaultyOrigin(registry) as origin:
        yield origin


async def listed(tree: Tree, *, fresh: bool = False) -> list[str]:
    return [str(listing.spec) for listing in (await tree.catalog(fresh=fresh)).listings]


def spoil(registry: Path) -> None:
    """Every list becomes a page."""
    for path in registry.glob("api/v1/**/*.json"):
        path.write_bytes(b"<html>\n")


async def test_the_index_is_asked_for_once_within_its_ttl(
    tmp_path: Path, server: RegistryServer, clock: MockClock
) -> None:
    async with rig(tmp_path / "cache", server.url) as parts:
        async with trio.open_nursery() as askers:
            for _ in range(10):
                askers.start_soon(parts.tree.catalog)
        clock.jump(TTL - 1)
        await parts.tree.catalog()
        assert len(server.paths("/api/v1/index.json")) == 1


async def test_an_answer_is_kept_though_its_asker_was_interrupted(
    tmp_path: Path, server: RegistryServer
) -> None:
    async with rig(tmp_path / "cache", server.url) as parts:
        async with trio.open_nursery() as askers:
            askers.start_soon(parts.tree.catalog)
            await trio.testing.wait_all_tasks_blocked()
            askers.cancel_scope.cancel()
        await settled(parts.tree.has_catalog)
        await parts.tree.catalog()
        assert len(server.paths("/api/v1/index.json")) == 1


async def test_an_old_index_is_served_while_it_is_asked_for_again(
    tmp_path: Path, server: RegistryServer, clock: MockClock
) -> None:
    async with rig(tmp_path / "cache", server.url) as parts:
        before = await listed(parts.tree)
        published(tmp_path, SIZES, spec="nlp/tiny@2.0.0", seed=3)
        clock.jump(TTL)
        assert await listed(parts.tree) == before
        await settled(lambda: len(server.paths("/api/v1/index.json")) == 2)
        with trio.fail_after(5):
            while "nlp/tiny@2.0.0" not in await listed(parts.tree):
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await parts.tree.versions("nlp/tiny")).latest == "2.0.0"
        assert len(server.paths("/api/v1/index.json")) == 2


async def test_a_fresh_answer_is_waited_for_but_not_asked_for_all_the_time(
    tmp_path: Path, server: RegistryServer, clock: MockClock
) -> None:
    async with rig(tmp_path / "cache", server.url) as parts:
        await parts.tree.catalog()
        published(tmp_path, SIZES, spec="nlp/tiny@2.0.0", seed=3)
        assert "nlp/tiny@2.0.0" not in await listed(parts.tree, fresh=True)
        clock.jump(MIN_AGE)
        assert "nlp/tiny@2.0.0" in await listed(parts.tree, fresh=True)


async def test_invalidating_has_everything_asked_for_again(
    tmp_path: Path, server: RegistryServer
) -> None:
    async with rig(tmp_path / "cache", server.url) as parts:
        await parts.tree.catalog()
        published(tmp_path, SIZES, spec="nlp/tiny@2.0.0", seed=3)
        parts.tree.invalidate()
        assert "nlp/tiny@2.0.0" in await listed(parts.tree, fresh=True)


async def test_the_first_registry_that_has_a_version_wins(
    tmp_path: Path, server: RegistryServer, second: RegistryServer
) -> None:
    spec = parse_spec("nlp/tiny@1.0.0")
    digests = []
    for number, urls in enumerate([(server.url, second.url), (second.url, server.url)]):
        async with rig(tmp_path / f"cache{number}", *urls) as parts:
            names = await listed(parts.tree)
            assert names.count("nlp/tiny@1.0.0") == 1
            assert {"cv/only@2.0.0", "nlp/tiny@1.10.0"} <= set(names)
            version = await parts.tree.version(spec)
            assert version.base.rstrip("/") == urls[0].rstrip("/")
            assert (await parts.tree.version(parse_spec("cv/only"))).source is not None
            digests.append(version.manifest.files[-1].digest)
    assert digests[0] != digests[1]


async def test_one_registry_that_is_down_hides_nothing_of_the_other(
    tmp_path: Path, second: RegistryServer, registry: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultyOrigin(registry) as origin:
        origin.always(faulty.status(503))
        async with rig(tmp_path / "cache", origin.url, second.url) as parts:
            assert "cv/only@2.0.0" in await listed(parts.tree)
            assert (await parts.tree.version(parse_spec("cv/only@2.0.0"))).base
            state = parts.tree.outages.of(parts.tree.registries[0])
            assert state.fault is not None
            for _ in range(3):
                parts.tree.invalidate()
                await parts.tree.catalog(fresh=True)
            warned = [record for record in caplog.records if record.levelname == "WARNING"]
            assert len(warned) == 1, "a registry that stays down is logged once"
            assert origin.url in warned[0].getMessage()
            origin.always(None)
            parts.tree.invalidate()
            assert "nlp/tiny@1.0.0" in await listed(parts.tree, fresh=True)
            assert state.fault is None


async def test_a_registry_that_is_down_at_the_start(tmp_path: Path, server: RegistryServer) -> None:
    """What an earlier run saw is listed and resolves; without one there is an error."""
    spec, other = parse_spec("nlp/tiny@1.0.0"), parse_spec("nlp/tiny@1.10.0")
    async with rig(tmp_path / "cache", server.url) as parts:
        names = await listed(parts.tree)
        await parts.tree.version(spec)
        url = server.url
    server.__exit__(None, None, None)
    try:
        async with rig(tmp_path / "cache", url) as parts:
            assert await listed(parts.tree) == names
            assert (await parts.tree.version(spec)).spec == spec
            assert (await parts.tree.versions("nlp/tiny")).latest == "1.10.0"
            with pytest.raises(AxonError, match="refused") as caught:
                await parts.tree.version(other)
            assert not isinstance(caught.value, NotFoundError)
            assert caught.value.spec == str(other)
        async with rig(tmp_path / "empty", url) as parts:
            with pytest.raises(AxonError, match="refused"):
                await parts.tree.catalog()
    finally:
        server.__enter__()


async def test_a_registry_that_goes_down_later(
    tmp_path: Path, registry: Path, clock: MockClock
) -> None:
    with FaultyOrigin(registry) as origin:
        async with rig(tmp_path / "cache", origin.url) as parts:
            names = await listed(parts.tree)
            await parts.tree.version(parse_spec("nlp/tiny"))
            origin.always(faulty.reset_before)
            clock.jump(TTL)
            assert await listed(parts.tree) == names
            state = parts.tree.outages.of(parts.tree.registries[0])
            await settled(lambda: state.fault is not None)
            assert await listed(parts.tree) == names
            assert (await parts.tree.version(parse_spec("nlp/tiny"))).spec.version == "1.10.0"
            asked = len(origin.requests)
            for _ in range(20):
                await parts.tree.catalog()
                await parts.tree.versions("nlp/tiny")
            assert len(origin.requests) == asked


async def test_lists_that_are_garbage_spoil_only_their_own_registry(
    tmp_path: Path, registry: Path, second: RegistryServer, clock: MockClock
) -> None:
    """A captive portal, say, that answers every path with a page."""
    with FaultyOrigin(registry) as origin:
        async with rig(tmp_path / "cache", origin.url) as parts:
            names = await listed(parts.tree)
            spoil(registry)
            clock.jump(MIN_AGE)
            assert await listed(parts.tree, fresh=True) == names
        async with rig(tmp_path / "alone", origin.url) as parts:
            with pytest.raises(MalformedError):
                await parts.tree.catalog()
        async with rig(tmp_path / "both", origin.url, second.url) as parts:
            assert set(await listed(parts.tree)) == {"nlp/tiny@1.0.0", "cv/only@2.0.0"}
            assert (await parts.tree.versions("nlp/tiny")).versions == ("1.0.0",)
        async with rig(tmp_path / "both", origin.url, second.url, offline=True) as parts:
            assert "cv/only@2.0.0" in await listed(parts.tree)


async def test_an_unlisted_version_resolves_and_is_then_known(
    tmp_path: Path, registry: Path, server: RegistryServer
) -> None:
    index = registry / "api/v1/index.json"
    before = index.read_bytes()
    published(tmp_path, SIZES, spec="nlp/hidden@3.0.0", seed=3)
    index.write_bytes(before)
    spec = parse_spec("nlp/hidden@3.0.0")
    async with rig(tmp_path / "cache", server.url) as parts:
        assert str(spec) not in await listed(parts.tree)
        async with trio.open_nursery() as askers:
            for _ in range(5):
                askers.start_soon(parts.tree.version, spec)
        assert (await parts.tree.versions("nlp/hidden")).versions == ("3.0.0",)
        assert (await parts.tree.version(parse_spec("nlp/hidden"))).spec == spec
    manifests = [path for path in server.paths() if path.endswith("3.0.0/manifest.yaml")]
    assert len(manifests) == 1
    async with rig(tmp_path / "cache", server.url, offline=True) as parts:
        assert (await parts.tree.version(spec)).spec == spec
        directory = (await parts.tree.catalog()).directories["nlp", "hidden"]
        assert directory.versions == {"3.0.0"}


async def test_a_name_that_nobody_has(tmp_path: Path, server: RegistryServer) -> None:
    async with rig(tmp_path / "cache", server.url) as parts:
        for text in ("nlp/none@1.0.0", "nlp/none", "none/none"):
            with pytest.raises(NotFoundError):
                await parts.tree.version(parse_spec(text))
    async with rig(tmp_path / "cache", server.url, offline=True) as parts:
        with pytest.raises(OfflineError):
            await parts.tree.version(parse_spec("nlp/none@1.0.0"))


async def test_a_registry_without_any_list(tmp_path: Path, plain: FaultyOrigin) -> None:
    """Full names resolve; nothing is listed but what was resolved; `latest` is the registry's."""
    async with rig(tmp_path / "cache", plain.url) as parts:
        assert await listed(parts.tree) == []
        assert not parts.tree.outages.indexed
        spec = parse_spec("nlp/tiny@1.0.0")
        assert (await parts.tree.version(spec)).manifest.file("weights.bin") is not None
        with pytest.raises(NotFoundError):
            await parts.tree.version(parse_spec("nlp/tiny@9.9.9"))
        parts.tree.invalidate()
        catalog = await parts.tree.catalog(fresh=True)
        assert catalog.directories["nlp", "tiny"].versions == {"1.0.0"}
        assert (await parts.tree.versions("nlp/tiny")).versions == ("1.0.0",)


async def test_stat_of_a_directory_waits_for_no_registry(
    tmp_path: Path, plain: FaultyOrigin, clock: MockClock
) -> None:
    """Nor does it fail: also where no version is known, and the answer is old."""
    async with rig(tmp_path / "cache", plain.url) as parts:
        places, directory = Paths(parts.tree, dict), Directory(("nlp", "none"))
        assert (await parts.tree.versions("nlp/none")).versions == ()
        await parts.tree.catalog()
        plain.always(faulty.stall_before)
        for _ in range(2):
            with trio.fail_after(0.1):
                await places.dated(directory)
            clock.jump(TTL)


async def test_latest_where_the_registry_resolves_it_by_itself(
    tmp_path: Path, plain: FaultyOrigin, registry: Path
) -> None:
    model = registry / "api/v1/models/nlp/tiny"
    (model / "latest").mkdir()
    manifest = (model / "1.0.0/manifest.yaml").read_bytes()
    (model / "latest/manifest.yaml").write_bytes(manifest)
    async with rig(tmp_path / "cache", plain.url) as parts:
        version = await parts.tree.version(parse_spec("nlp/tiny"))
        assert version.spec == parse_spec("nlp/tiny@1.0.0")


async def test_latest_follows_the_registry(tmp_path: Path, registry: Path) -> None:
    """Its own choice, not the highest number."""
    path = registry / "api/v1/models/nlp/tiny/versions.json"
    path.write_text(json.dumps({"versions": ["1.0.0", "1.10.0"], "latest": "1.0.0"}))
    with RegistryServer(registry) as server:
        async with rig(tmp_path / "cache", server.url) as parts:
            assert (await parts.tree.version(parse_spec("nlp/tiny"))).spec.version == "1.0.0"
            assert (await parts.tree.versions("nlp/tiny")).versions == ("1.0.0", "1.10.0")


async def test_ten_thousand_versions(tmp_path: Path, registry: Path) -> None:
    index = registry / "api/v1/index.json"
    models = [
        {"namespace": f"team{n % 50}", "name": f"model{n % 1000}", "version": f"{n // 1000}.0.0"}
        for n in range(10_000)
    ]
    index.write_text(json.dumps({"apiVersion": "axonfs/v1", "models": models}))
    assert len(parse_index(index.read_bytes())[0]) == 10_000
    with RegistryServer(registry) as server:
        async with rig(tmp_path / "cache", server.url) as parts:
            catalog = await parts.tree.catalog()
            assert len(catalog.listings) == 10_000
            assert len(catalog.directories[()].children) == 50
            assert len(await search_registries(parts.tree, "model7 team7")) > 10
            assert len(server.requests) == 1
