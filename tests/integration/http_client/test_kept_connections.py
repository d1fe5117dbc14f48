"""Connections that bodies keep, share and replace."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from axonfs.errors import AxonError
from axonfs.http_client import Bodies, Location
from tests.integration.http_client.conftest import DATA, SIZE, UNIT, read
from tests.support import faulty
from tests.support.faulty_origin import FaultyOrigin


def open_sockets() -> int:
    links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    return sum(os.path.lexists(link) and os.readlink(link).startswith("socket:") for link in links)


def test_sequential_ranges_share_one_connection(bodies: Bodies, origin: FaultyOrigin) -> None:
    for start in range(0, 8 * UNIT, 2 * UNIT):
        read(bodies, origin, start, start + 2 * UNIT)
    assert {seen.connection for seen in origin.requests} == {1}


def test_an_error_page_leaves_the_connection_usable(bodies: Bodies, origin: FaultyOrigin) -> None:
    origin.plan(faulty.status(503), faulty.status(404), faulty.redirect("/object"))
    for _ in range(2):
        with pytest.raises(AxonError):
            read(bodies, origin)
    assert read(bodies, origin).bytes == DATA
    assert len(origin.requests) == 4
    assert {seen.connection for seen in origin.requests} == {1}


def test_parallel_ranges_have_a_connection_each(bodies: Bodies, origin: FaultyOrigin) -> None:
    barrier = threading.Barrier(4, timeout=5)

    def sink(_offset: int, _view: memoryview) -> None:
        barrier.wait()

    def one(number: int) -> None:
        location = Location(origin.url + "object")
        bodies.read(location, number * UNIT, (number + 1) * UNIT, SIZE, sink, unit=UNIT)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(one, range(4)))
    assert {seen.connection for seen in origin.requests} == {1, 2, 3, 4}


def test_a_connection_that_the_server_closed_is_replaced(
    bodies: Bodies, origin: FaultyOrigin
) -> None:
    origin.plan(faulty.behave, faulty.hang_up_before)
    read(bodies, origin, 0, UNIT)
    # The server takes the request on the kept connection and hangs up without a word.
    assert read(bodies, origin, 0, UNIT).bytes == DATA[:UNIT]
    assert [seen.connection for seen in origin.requests] == [1, 1, 2]


def test_a_connection_with_surplus_bytes_is_not_used_again(
    bodies: Bodies, origin: FaultyOrigin
) -> None:
    origin.plan(faulty.trailing_garbage)
    read(bodies, origin, 0, UNIT)
    assert read(bodies, origin, UNIT, 2 * UNIT).bytes == DATA[UNIT : 2 * UNIT]
    # Seen before the request goes out (a second connection), or where its answer should be.
    assert [seen.connection for seen in origin.requests] in ([1, 2], [1, 1, 2])


def test_no_socket_is_leaked(bodies: Bodies, origin: FaultyOrigin) -> None:
    before = open_sockets()
    faults = [faulty.short, faulty.reset_within, faulty.changed_etag, faulty.garbage]
    origin.plan(*faults, faulty.status(500), faulty.wrong_range, faulty.long)
    location = Location(origin.url + "object", etag='"e"')
    for _ in range(len(faults) + 3):
        with pytest.raises(AxonError):
            read(bodies, origin, 0, UNIT, location=location)
    bodies.close()
    deadline = time.monotonic() + 5  # the server's ends close when its threads notice
    while open_sockets() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert open_sockets() <= before
