"""Bytes through Dragonfly, played by a double: what its peers have to be told, they are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from axonfs.http_client import SiteCaches, Trust, caches
from tests.support.dfdaemon import MIB, Dfdaemon, Swarm
from tests.support.faulty import status
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import CHUNK, objects_asked, rig
from tests.support.hub import HubServer, Repo, sha256
from tests.support.registry import published
from tests.support.tinyhub import FILES, LARGE, NAME, at
from tests.support.wiring import Authority

SLICE = 4 * MIB  # the least that Dragonfly takes for a piece


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A model of two pieces and a bit."""
    return published(tmp_path, {"model.safetensors": 9 * MIB + 123}, chunk_size=CHUNK)


@pytest.fixture(autouse=True)
def _slices_of_dragonfly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "SLICE", SLICE)


@pytest.fixture
def swarm() -> Swarm:
    return Swarm()


def as_registry_via(peer: Dfdaemon, origin: FaultyOrigin) -> list[SiteCaches]:
    return [SiteCaches(origin.url, [peer.url], fallback=False)]


async def test_peers_share_one_copy(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes, swarm: Swarm
) -> None:
    """Each host asks its own dfdaemon, which needs no word of the registry in its configuration."""
    for host in ("one", "two", "three"):
        with Dfdaemon(swarm, prefetch=True) as peer:
            sites = as_registry_via(peer, origin)
            async with rig(tmp_path / host, origin.url, sites=sites) as parts:
                assert await parts.content("model.safetensors") == whole
    assert [task.size for task in swarm.tasks.values()] == [len(whole)]
    # What it is first asked for says how large the file is, then each piece comes once.
    assert objects_asked(origin) == 1 + 3


async def test_what_is_not_read_does_not_come(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes, swarm: Swarm
) -> None:
    """Neither what the configuration would prefetch, nor a piece beside that of the reader."""
    with Dfdaemon(swarm, prefetch=True) as peer:
        sites = as_registry_via(peer, origin)
        async with rig(tmp_path / "host", origin.url, sites=sites) as parts:
            feed = await parts.open("model.safetensors")
            await feed.prepare()
            assert await parts.read(feed, SLICE + 5, SLICE + 15) == whole[SLICE + 5 : SLICE + 15]
            feed.close()
    (task,) = swarm.tasks.values()
    assert (task.piece, list(task.pieces)) == (SLICE, [1])


async def test_a_task_is_known_by_its_digest_on_every_mirror(
    tmp_path: Path, registry: Path, origin: FaultyOrigin, whole: bytes, swarm: Swarm
) -> None:
    with FaultyOrigin(registry) as mirror, Dfdaemon(swarm) as peer:
        for host, source in (("one", origin), ("two", mirror)):
            sites = as_registry_via(peer, source)
            async with rig(tmp_path / host, source.url, sites=sites) as parts:
                assert await parts.content("model.safetensors") == whole
        assert objects_asked(mirror) == 0


async def test_as_the_proxy_of_the_environment(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes, swarm: Swarm
) -> None:
    for host in ("one", "two"):
        with Dfdaemon(swarm) as peer:
            environ = {"http_proxy": peer.url}
            async with rig(tmp_path / host, origin.url, environ=environ) as parts:
                assert await parts.content("model.safetensors") == whole
            asked = {headers["range"] for _, headers in peer.seen if "range" in headers}
            # A busy machine may add hedges, each for the rest of one of them.
            slices = {"bytes=0-4194303", "bytes=4194304-8388607", "bytes=8388608-9437306"}
            assert slices <= asked
            ends = {wanted.rpartition("-")[2] for wanted in slices}
            assert {wanted.rpartition("-")[2] for wanted in asked} == ends
    assert objects_asked(origin) == 1 + 3


async def test_as_the_proxy_to_a_source_with_tls(
    tmp_path: Path, registry: Path, whole: bytes, swarm: Swarm
) -> None:
    """It shows a certificate of its own authority."""
    (tmp_path / "tls").mkdir()
    authority = Authority.make(tmp_path / "tls")
    trust = Trust(authority.bundle)
    with FaultyOrigin(registry, authority=authority) as origin:
        for host in ("one", "two"):
            with Dfdaemon(swarm, authority=authority) as peer:
                environ = {"https_proxy": peer.url}
                async with rig(tmp_path / host, origin.url, environ=environ, trust=trust) as parts:
                    assert await parts.content("model.safetensors") == whole
        assert objects_asked(origin) == 1 + 3


async def test_as_the_proxy_to_a_hub(tmp_path: Path, swarm: Swarm) -> None:
    """The peers share what the hub's redirects lead to, whatever its signature is."""
    repo = Repo("acme/tiny", large=LARGE)
    repo.commit(FILES)
    body = FILES["model.safetensors"]
    with HubServer(repo) as hub:
        for host in ("one", "two"):
            with Dfdaemon(swarm) as peer:
                environ = {"http_proxy": peer.url}
                async with rig(tmp_path / host, hubs=at(hub), environ=environ) as parts:
                    assert await parts.content("model.safetensors", NAME) == body
        assert len(hub.asked(sha256(body), "storage")) == 1 + 1


async def test_an_error_of_the_source_is_the_sources(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes, swarm: Swarm
) -> None:
    origin.plan(status(429, Retry_After="0"), of="/objects/")
    with Dfdaemon(swarm) as peer:
        sites = as_registry_via(peer, origin)
        async with rig(tmp_path / "host", origin.url, sites=sites) as parts:
            assert await parts.content("model.safetensors") == whole
        assert not any(state.fault for site in sites for state in site.states())
