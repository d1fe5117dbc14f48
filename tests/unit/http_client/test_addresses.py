"""The order in which the addresses of a host are tried."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from axonfs.http_client import addresses as module
from axonfs.http_client.addresses import Addresses
from axonfs.http_client.urls import target_of

ORIGIN = target_of("http://models.example/").origin
OTHER = target_of("http://other.example/").origin


def found(*addresses: str) -> list[Any]:
    """As `getaddrinfo` gives them."""
    families = [socket.AF_INET6 if ":" in one else socket.AF_INET for one in addresses]
    return [
        (family, socket.SOCK_STREAM, 6, "", (address, 80))
        for family, address in zip(families, addresses, strict=True)
    ]


def order(
    addresses: Addresses, given: list[Any], *, spread: bool = True, origin: Any = ORIGIN
) -> list[str]:
    return [one[4][0] for one in addresses.ordered(origin, given, spread=spread)]


def test_each_has_its_turn_of_each_host() -> None:
    addresses, given = Addresses(), found("10.0.0.1", "10.0.0.2", "10.0.0.3")
    firsts = []
    for _ in range(6):
        firsts.append(order(addresses, given)[0][-1])
        order(addresses, given, origin=OTHER)  # of another host: takes no turn
    assert firsts == ["1", "2", "3", "1", "2", "3"]
    assert order(addresses, given, spread=False) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert order(addresses, []) == []


def test_the_family_that_the_resolver_prefers_stays_first() -> None:
    addresses, given = Addresses(), found("fd00::1", "fd00::2", "10.0.0.1")
    assert order(addresses, given) == ["fd00::1", "fd00::2", "10.0.0.1"]
    assert order(addresses, given) == ["fd00::2", "fd00::1", "10.0.0.1"]


def test_what_failed_lately_is_last(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses, given = Addresses(), found("10.0.0.1", "10.0.0.2", "10.0.0.3")
    addresses.failed(("10.0.0.1", 80))
    assert order(addresses, given) == ["10.0.0.2", "10.0.0.3", "10.0.0.1"]
    assert order(addresses, given, spread=False) == ["10.0.0.2", "10.0.0.3", "10.0.0.1"]
    addresses.connected(("10.0.0.1", 80))
    assert order(addresses, given, spread=False)[0] == "10.0.0.1"
    addresses.failed(("10.0.0.1", 80))
    monkeypatch.setattr(module, "FAILED_SECONDS", 0.0)
    assert order(addresses, given, spread=False)[0] == "10.0.0.1"
