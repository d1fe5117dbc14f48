"""Site caches whose names have several addresses: each is a cache of its own."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import trio

from axonfs.http_client import (
    Bodies,
    Caches,
    Documents,
    Limits,
    Location,
    Lookups,
    Routes,
    SiteCaches,
    Trust,
)
from tests.support.faulty_origin import FaultyOrigin
from tests.support.files import write_files
from tests.support.relay import HOST, Relay, several
from tests.support.wiring import Authority

DATA = random.Random(7).randbytes(300_000)
LIMIT = 400_000


async def test_a_cache_at_one_address_has_the_name_in_its_certificate(
    tmp_path: Path, authority: Authority
) -> None:
    """No certificate of the tests has the address 127.0.0.2."""
    files = write_files(tmp_path / "www", {"m/doc": DATA})
    with FaultyOrigin(files, authority) as server, Relay(server.url, at=("127.0.0.2", 0)) as relay:
        site = SiteCaches("http://reg.example/reg", [f"https://localhost:{relay.port}/m"])
        (cache,), (configured,) = site, site.configured
        origin = cache.url.origin._replace(address="127.0.0.2")
        site.locate(configured, [replace(cache.url, origin=origin)])
        trust = Trust(authority.bundle)
        async with Documents(trust=trust, routes=Routes({}), caches=Caches([site])) as client:
            fetched = await client.get("http://reg.example/reg/doc", limit=LIMIT)
    assert fetched is not None
    assert fetched.body == DATA
    assert server.requests[0].headers["host"] == f"localhost:{relay.port}"
    assert relay.connections == 1


async def test_each_address_of_a_name_has_a_share_and_one_that_ends_leaves_it_to_the_others(
    tmp_path: Path,
) -> None:
    names = [f"doc{number}" for number in range(30)]
    files = write_files(tmp_path / "www", {f"m/{name}": DATA[:1000] for name in names})
    with FaultyOrigin(files) as server, several(server.url) as relays:
        site = SiteCaches("http://reg.example/reg", [f"http://{HOST}:{relays[0].port}/m"])
        await Lookups(Caches([site]), Routes({})).once()
        async with Documents(routes=Routes({}), caches=Caches([site])) as client:
            for name in names:
                assert await client.get(f"http://reg.example/reg/{name}", limit=LIMIT)
            assert all(state.requests > 0 for state in site.states())
            assert {seen.headers["host"] for seen in server.requests} == {
                f"{HOST}:{relays[0].port}"
            }
            relays[1].close()
            for name in names:
                assert await client.get(f"http://reg.example/reg/{name}", limit=LIMIT)
    (gone,) = [state for state in site.states() if state.fault]
    assert gone.address == "127.0.0.2"


def test_bytes_of_a_cache_at_one_address_come_from_there(tmp_path: Path) -> None:
    files, taken, size = write_files(tmp_path / "www", {"m/object": DATA}), bytearray(), len(DATA)
    with FaultyOrigin(files) as server, several(server.url) as relays:
        site = SiteCaches("http://reg.example/reg", [f"http://{HOST}:{relays[0].port}/m"])
        trio.run(Lookups(Caches([site]), Routes({})).once)
        with Bodies(Limits(), routes=Routes({}), caches=Caches([site])) as bodies:
            for cache in site:
                location = Location("http://reg.example/reg/object")
                location = location.through(cache, None, ranged=True)
                bodies.read(location, 0, size, size, lambda _, view: taken.extend(view), unit=4096)
    assert taken == DATA * 3
    assert [relay.connections for relay in relays] == [1, 1, 1]
