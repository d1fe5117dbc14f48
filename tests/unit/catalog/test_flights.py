"""Flights: one call per key, shared by all who ask while it runs."""

import pytest
import trio

from axonfs.catalog.flights import Flights
from axonfs.errors import NotFoundError


async def test_joiners_share_one_call(nursery: trio.Nursery) -> None:
    flights, calls, results = Flights(nursery), 0, []
    gate = trio.Event()

    async def call() -> int:
        nonlocal calls
        calls += 1
        await gate.wait()
        return calls

    async def ask() -> None:
        results.append(await flights.join("key", call))

    async with trio.open_nursery() as askers:
        for _ in range(5):
            askers.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert results == [1] * 5
    await flights.join("key", call)
    assert calls == 2


async def test_a_fresh_joiner_waits_for_a_call_that_begins_after_it(nursery: trio.Nursery) -> None:
    flights, calls, results = Flights(nursery), 0, []

    async def call() -> int:
        nonlocal calls
        calls += 1
        number = calls
        await trio.sleep(0.01)
        return number

    async def ask(fresh: bool) -> None:
        results.append(await flights.join("key", call, fresh=fresh))

    async with trio.open_nursery() as askers:
        askers.start_soon(ask, False)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            askers.start_soon(ask, True)
    assert results == [1, 2, 2, 2]


async def test_every_joiner_gets_the_error(nursery: trio.Nursery) -> None:
    flights = Flights(nursery)

    async def call() -> None:
        raise NotFoundError("gone")

    for _ in range(2):
        with pytest.raises(NotFoundError):
            await flights.join("key", call)


async def test_a_joiner_that_leaves_cancels_nothing(nursery: trio.Nursery) -> None:
    flights, gate, results = Flights(nursery), trio.Event(), []

    async def call() -> str:
        await gate.wait()
        return "done"

    async def stay() -> None:
        results.append(await flights.join("key", call))

    async with trio.open_nursery() as askers:
        with trio.move_on_after(0) as left:
            await flights.join("key", call)
        askers.start_soon(stay)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert left.cancelled_caught
    assert results == ["done"]
