"""A host with several addresses: connections are kept, and spread over the addresses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from axonfs.http_client import Bodies, Location
from tests.integration.http_client.conftest import DATA, SIZE, UNIT
from tests.support.faulty_origin import FaultyOrigin
from tests.support.relay import HOST, Relay, several


@pytest.fixture
def relays(origin: FaultyOrigin) -> Iterator[list[Relay]]:
    """One way to the origin at each of three addresses, which a name has."""
    with several(origin.url) as relays:
        yield relays


def read_at_once(bodies: Bodies, relays: list[Relay], count: int, **options: Any) -> None:
    """So many reads, each with a connection of its own."""
    location = Location(f"http://{HOST}:{relays[0].port}/object", **options)
    barrier = threading.Barrier(count, timeout=20)

    def read(number: int) -> None:
        def sink(offset: int, view: memoryview) -> None:
            barrier.wait()
            assert view == DATA[offset : offset + UNIT]

        bodies.read(location, number * UNIT, (number + 1) * UNIT, SIZE, sink, unit=UNIT)

    with ThreadPoolExecutor(count) as threads:
        list(threads.map(read, range(count)))


def test_connections_are_spread_and_kept(bodies: Bodies, relays: list[Relay]) -> None:
    for _ in range(3):
        read_at_once(bodies, relays, 6)
    assert [relay.connections for relay in relays] == [2, 2, 2]


def test_an_address_that_does_not_answer_costs_one_attempt(
    bodies: Bodies, relays: list[Relay]
) -> None:
    relays[1].close()
    read_at_once(bodies, relays, 6)
    assert sum(relay.connections for relay in relays) == 6
    assert relays[1].connections == 0


def test_answers_that_only_an_etag_ties_together_are_of_one_address(
    bodies: Bodies, relays: list[Relay]
) -> None:
    read_at_once(bodies, relays, 6, spread=False)
    read_at_once(bodies, relays, 3)
    assert [relay.connections for relay in relays] == [7, 1, 1]
