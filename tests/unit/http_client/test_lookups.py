"""Where site caches are: the addresses of names, and the hosts of SRV records."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest
import trio
from trio.testing import MockClock

from axonfs.errors import UsageError
from axonfs.http_client import Caches, Lookups, Routes, SiteCaches, check_srv


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The addresses that names have."""

    def getaddrinfo(host: str, port: int, *rest: Any) -> list[Any]:
        if host not in found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        kind = socket.SOCK_STREAM, socket.IPPROTO_TCP, ""
        family = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(family[":" in one], *kind, (one, port)) for one in found[host]]

    found: dict[str, list[str]] = {}
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return found


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[tuple[str, int]]]]:
    """The SRV records that a name server on loopback has."""
    found: dict[str, list[tuple[str, int]]] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=answer_all, args=(sock, found))
        thread.start()
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], sock.getsockname()[1]
        monkeypatch.setattr("dns.resolver.default_resolver", resolver)
        yield found
        sock.sendto(b"", sock.getsockname())
        thread.join()


def answer_all(sock: socket.socket, records: dict[str, list[tuple[str, int]]]) -> None:
    """Be a name server until an empty datagram comes."""
    while question := sock.recvfrom(4096):
        raw, asker = question
        if not raw:
            return
        query = dns.message.from_wire(raw)
        reply = dns.message.make_response(query)
        name = query.question[0].name
        listed = [f"0 0 {port} {host}." for host, port in records.get(str(name).rstrip("."), [])]
        if listed:
            reply.answer.append(dns.rrset.from_text(name, 1, "IN", "SRV", *listed))
        else:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        sock.sendto(reply.to_wire(), asker)


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0.1)  # lookups run in threads, in real time


def site(*urls: str) -> SiteCaches:
    return SiteCaches("https://reg.example/models", urls)


async def look_up(*sites: SiteCaches, proxies: dict[str, str] | None = None) -> Lookups:
    found = Lookups(Caches(sites), Routes(proxies or {}))
    await found.once()
    return found


def named(site: SiteCaches) -> list[str]:
    return [state.name for state in site.states()]


async def test_each_address_is_a_cache_and_is_looked_up_again(names: dict[str, list[str]]) -> None:
    caches = site("http://c.example:8080/m", "http://10.9.9.9/m")
    names["c.example"] = ["10.0.0.1", "10.0.0.2", "fd00::1"]
    found = await look_up(caches)
    assert named(caches) == [
        "http://c.example:8080/m at 10.0.0.1",
        "http://c.example:8080/m at 10.0.0.2",
        "http://10.9.9.9/m",
    ]
    names["c.example"] = ["10.0.0.2", "10.0.0.3"]
    await found.once()
    assert "http://c.example:8080/m at 10.0.0.3" in named(caches)
    del names["c.example"]
    await found.once()
    assert len(named(caches)) == 3, "the resolver fails, so the known ones stay"


async def test_names_are_looked_up_again_every_30_seconds(
    names: dict[str, list[str]], clock: MockClock
) -> None:
    caches = site("http://c.example/m")
    names["c.example"] = ["10.0.0.1", "10.0.0.2"]
    found = await look_up(caches)
    names["c.example"] = ["10.0.0.3", "10.0.0.4"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        await trio.sleep(29)
        assert "http://c.example/m at 10.0.0.1" in named(caches)
        await trio.sleep(2)
        assert "http://c.example/m at 10.0.0.3" in named(caches)
        nursery.cancel_scope.cancel()


async def test_a_cache_that_no_record_was_found_for_is_looked_up_soon(
    names: dict[str, list[str]],
    records: dict[str, list[tuple[str, int]]],
    clock: MockClock,
) -> None:
    """A host that starts before its name server has its caches soon after."""
    caches = site("srv+http://_axonfs._tcp.site.example/m")
    found = await look_up(caches)
    records["_axonfs._tcp.site.example"] = [("a.site.example", 8001)]
    names["a.site.example"] = ["10.0.0.1"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        await trio.sleep(5)
        assert named(caches) == ["http://a.site.example:8001/m"]
        nursery.cancel_scope.cancel()


async def test_a_name_with_one_address_is_the_same_cache_on_every_host(
    names: dict[str, list[str]],
) -> None:
    """A host's own name is 127.0.1.1 on the host itself, and another address elsewhere."""
    caches = site("http://host-1/m")
    names["host-1"] = ["127.0.1.1"]
    await look_up(caches)
    assert named(caches) == ["http://host-1/m"]


async def test_a_proxy_looks_up_the_names_itself(names: dict[str, list[str]]) -> None:
    caches = site("http://c.example/m")
    names["c.example"] = ["10.0.0.1", "10.0.0.2"]
    await look_up(caches, proxies={"HTTP_PROXY": "http://proxy:3128"})
    assert named(caches) == ["http://c.example/m"]


async def test_srv_records_name_hosts_and_ports(
    names: dict[str, list[str]], records: dict[str, list[tuple[str, int]]]
) -> None:
    caches = site("srv+http://_axonfs._tcp.site.example/m")
    assert named(caches) == []
    found = await look_up(caches)
    (state,) = caches.states()
    assert "the SRV records do not resolve" in str(state.fault)
    records["_axonfs._tcp.site.example"] = [("a.site.example", 8001), ("b.site.example", 8002)]
    names |= {"a.site.example": ["10.0.0.1"], "b.site.example": ["10.0.0.2", "10.0.0.3"]}
    await found.once()
    assert named(caches) == [
        "http://a.site.example:8001/m",
        "http://b.site.example:8002/m at 10.0.0.2",
        "http://b.site.example:8002/m at 10.0.0.3",
    ]


async def test_with_https_srv_records_name_hosts_of_their_own_domain(
    names: dict[str, list[str]], records: dict[str, list[tuple[str, int]]]
) -> None:
    caches = site("srv+https://_axonfs._tcp.site.example/m")
    records["_axonfs._tcp.site.example"] = [("a.site.example", 443), ("evil.example", 443)]
    names |= {"a.site.example": ["10.0.0.1"], "evil.example": ["10.0.0.2"]}
    await look_up(caches)
    (state,) = caches.states()
    assert "evil.example, which is not below site.example" in str(state.fault)


def test_srv_records_need_dnspython(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_srv("http://cache")
    with pytest.raises(UsageError, match=r"pip install 'axonfs\[srv\]'"):
        check_srv("srv+http://_axonfs._tcp.site.example")
