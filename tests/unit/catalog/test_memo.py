"""Answers that are kept, by a clock of the test's own."""

from __future__ import annotations

import itertools

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from axonfs.catalog.flights import Flights
from axonfs.catalog.memo import MIN_AGE, TTL, Memo


class Question:
    """Counts how often it was asked; the answer is that number, once `free` is set."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.free = trio.Event()
        self.free.set()

    async def ask(self) -> int:
        number = next(self._numbers)
        await self.free.wait()
        return number


async def test_an_old_answer_is_served_while_it_is_asked_again(mock_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        memo, question = Memo(nursery, Flights(nursery), lambda: False), Question()
        assert memo.served("key", question.ask) is None
        assert await memo.recent("key", question.ask) == 1
        mock_clock.jump(MIN_AGE)
        assert await memo.recent("key", question.ask, fresh=True) == 2
        assert await memo.recent("key", question.ask, fresh=True) == 2
        mock_clock.jump(TTL)
        assert memo.served("key", question.ask) == 2
        await wait_all_tasks_blocked()
        assert await memo.recent("key", question.ask) == 3


async def test_a_question_that_is_under_way_is_not_waited_for_twice() -> None:
    """Lookups beside a silent source ask for the catalog: thousands of tasks would wait for it."""
    async with trio.open_nursery() as nursery:
        memo, question = Memo(nursery, Flights(nursery), lambda: False), Question()
        question.free = trio.Event()
        for _ in range(100):
            memo.ask_soon("key", question.ask)
            await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 2
        question.free.set()


async def test_an_answer_that_is_invalidated_while_it_is_asked_for_is_asked_again(
    mock_clock: MockClock,
) -> None:
    """It may tell how things were before."""
    async with trio.open_nursery() as nursery:
        memo, question = Memo(nursery, Flights(nursery), lambda: False), Question()
        question.free = trio.Event()
        nursery.start_soon(memo.recent, "key", question.ask)
        await wait_all_tasks_blocked()
        memo.invalidate()
        question.free.set()
        await wait_all_tasks_blocked()
        assert await memo.recent("key", question.ask) == 1
        await wait_all_tasks_blocked()
        assert await memo.recent("key", question.ask) == 2
