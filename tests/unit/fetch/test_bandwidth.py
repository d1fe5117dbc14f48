"""The limit on bytes per second: how much is allowed, who is next, and what ends a wait."""

import threading
import time
from collections.abc import Callable

import pytest

from axonfs.fetch import bandwidth as module
from axonfs.fetch.bandwidth import SMALLEST, UNUSED_SECONDS, Bandwidth
from axonfs.fetch.download import Priority

SLOW = SMALLEST * 10  # a share takes a tenth of a second


def demand() -> int:
    return Priority.DEMAND


def background() -> int:
    return Priority.BACKGROUND


def used_up(rate: int) -> Bandwidth:
    """A limit of which nothing is left: whoever asks now has to wait."""
    limit = Bandwidth(rate)
    while limit._due <= time.monotonic():
        limit.share(SMALLEST, demand)
    return limit


class Asking:
    """Threads that ask for one share each; `order` is the order in which they got it."""

    def __init__(self, limit: Bandwidth) -> None:
        self.limit = limit
        self.order: list[str] = []
        self._threads: list[threading.Thread] = []

    def ask(
        self, name: str, priority: Callable[[], int], cancelled: Callable[[], bool] = bool
    ) -> None:
        waiting = len(self.limit._waiters)

        def run() -> None:
            self.limit.share(SMALLEST, priority, cancelled)
            self.order.append(name)

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()
        while len(self.limit._waiters) == waiting and name not in self.order:
            time.sleep(0.001)

    def ended(self) -> list[str]:
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        return self.order


def test_without_a_limit_everything_is_allowed_at_once() -> None:
    limit = Bandwidth()
    assert limit.share(1 << 40, demand) == 1 << 40
    assert limit._waiters == []


@pytest.mark.parametrize("rate", [256 << 10, 200 << 20])
def test_threads_together_never_get_more_than_the_rate(rate: int) -> None:
    limit, began, taken = used_up(rate), time.monotonic(), [0, 0, 0, 0]
    largest = limit.share(1 << 30, background)

    def run(number: int) -> None:
        while time.monotonic() < began + 1:
            taken[number] += limit.share(1 << 30, background)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(taken))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    elapsed = time.monotonic() - began
    assert sum(taken) <= rate * (elapsed + UNUSED_SECONDS) + largest
    assert min(taken) > 0


def test_demand_goes_first_and_equals_in_turn() -> None:
    threads = Asking(used_up(SLOW))
    threads.ask("pin", background)
    threads.ask("ahead", lambda: Priority.READAHEAD)
    threads.ask("first", demand)
    threads.ask("second", demand)
    assert threads.ended() == ["first", "second", "ahead", "pin"]


def test_a_waiting_job_that_a_reader_needs_now_is_next() -> None:
    threads, priority = Asking(used_up(SLOW)), Priority.BACKGROUND
    threads.ask("one", background)
    threads.ask("wanted", lambda: priority)
    priority = Priority.DEMAND
    assert threads.ended() == ["wanted", "one"]


def test_bulk_work_gets_a_share_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers that use the whole limit do not keep a connection still for ever."""
    monkeypatch.setattr(module, "STARVED_SECONDS", 0.0)
    threads = Asking(used_up(SLOW))
    threads.ask("pin", background)
    threads.ask("reader", demand)
    assert threads.ended() == ["pin", "reader"]


def test_readers_keep_most_of_a_low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where so many connections wait that none has its turn in time."""
    monkeypatch.setattr(module, "STARVED_SECONDS", 0.0)
    threads = Asking(used_up(SLOW))
    for _ in range(3):
        threads.ask("pin", background)
    for _ in range(5):
        threads.ask("reader", demand)
    first, *rest = threads.ended()
    assert first == "pin"
    assert rest == ["reader"] * 3 + ["pin"] + ["reader"] * 2 + ["pin"]


def test_a_wait_ends_when_it_is_cancelled() -> None:
    limit = used_up(1024)  # the next share is due in 16 s
    threads, cancelled = Asking(limit), threading.Event()
    threads.ask("one", demand, cancelled.is_set)
    due = limit._due
    cancelled.set()
    assert threads.ended() == ["one"]
    assert limit._due == due, "it receives nothing, so no reader waits for its share"


@pytest.mark.parametrize("rate", [0, 1 << 30])
def test_a_new_limit_counts_for_threads_that_wait(rate: int) -> None:
    limit = used_up(1024)
    threads = Asking(limit)
    threads.ask("one", demand)
    threads.ask("two", background)
    limit.rate = rate
    assert sorted(threads.ended()) == ["one", "two"]
