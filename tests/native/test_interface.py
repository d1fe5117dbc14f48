"""What the native core tells Python, and what it does at Python's word; the kernel is played."""

from __future__ import annotations

import errno
import os
import select
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axonfs.fuse import openreply
from tests.native.kernel import GETATTR, Connection, header, read_request

HANDLE, OTHER = 2, 4
MIB = 1 << 20
SLACK = 2 * MIB  # of objects.c
LATER = 0.015  # likewise
FINISHED = struct.Struct("=QQQQQIIiI")  # of operations.c


class Core:
    """The core with one reader, so that it takes requests in order, and an object in memory."""

    def __init__(self, extension: Any, size: int, chunk: int) -> None:
        self.core = extension
        self.connection = Connection()
        self.news = extension.start(self.connection.device, 1, 1)
        self.file = os.memfd_create("object")
        os.truncate(self.file, size)
        self.number = self.add(size, chunk)
        assert extension.attach(HANDLE, self.number)

    def add(self, size: int, chunk: int) -> int:
        return int(self.core.add(self.file, size, chunk, True))

    def read(self, offset: int, size: int, handle: int = HANDLE) -> int:
        return self.connection.read(handle, offset, size)

    def answered(self, number: int, error: int = 0) -> int:
        """Wait for the answer to the request; returns its count of bytes."""
        answer, _ = self.connection.answer()
        assert (answer.number, answer.error) == (number, error)
        return len(answer.data)

    def popped(self) -> bytes:
        """Wait for a request that was handed over."""
        message: bytes = until(self.core.pop)
        self.connection.popped(message)
        return message

    def has_news(self) -> bool:
        return bool(select.select([self.news], [], [], 0)[0])

    def parked(self, count: int) -> list[tuple[int, ...]]:
        """Wait until so many reads are parked; returns them."""
        until(lambda: len(self.core.parked()) == count)
        return list(self.core.parked())

    def settled(self) -> None:
        """Wait until the reader has taken all requests: it pops this one after them."""
        self.connection.send(header(GETATTR, self.connection.number(), 16) + bytes(16))
        self.popped()


def until(found: Callable[[], Any]) -> Any:
    """What `found` returns once it is true."""
    end = time.monotonic() + 10
    while not (value := found()):
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.0005)
    return value


@contextmanager
def started(size: int = 64 * MIB, chunk: int = MIB) -> Iterator[Core]:
    extension = openreply.extension()
    if extension is None:
        pytest.skip(openreply.UNAVAILABLE or "there is no extension")
    core = Core(extension, size, chunk)
    try:
        yield core
    finally:
        assert extension.stop()
        core.connection.close()
        os.close(core.file)


@pytest.fixture
def core() -> Iterator[Core]:
    with started() as core:
        yield core


def runs(reads: list[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """The runs that these reads of HANDLE are told as."""
    told: list[tuple[int, int, int, int]] = []
    for offset, size in reads:
        if told and told[-1][1] <= offset <= told[-1][2] + SLACK:
            _, start, stop, count = told.pop()
            told.append((HANDLE, start, max(stop, offset + size), count + 1))
        else:
            told.append((HANDLE, offset, offset + size, 1))
    return told


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60 * MIB), st.integers(1, MIB)), max_size=12)
    | st.lists(st.tuples(st.integers(0, 4 * MIB), st.integers(1, MIB)), max_size=12)
)
def test_reads_that_follow_one_another_are_told_as_one_run(reads: list[tuple[int, int]]) -> None:
    with started() as core:
        core.core.landed(core.number, 0, 63)
        for offset, size in reads:
            assert core.answered(core.read(offset, size)) == size
        assert core.core.news() == (runs(reads), [])
        assert core.core.news() == ([], [])


def test_reads_of_a_complete_object_are_no_news(core: Core) -> None:
    core.core.landed(core.number, 0, 64)
    core.answered(core.read(0, 100))
    assert not core.has_news()
    assert core.core.news() == ([], [])


def test_a_read_is_news_once_it_reaches_the_mark(core: Core) -> None:
    core.core.landed(core.number, 0, 63)
    core.core.mark(HANDLE, 2 * MIB)
    core.answered(core.read(0, MIB))
    core.answered(core.read(MIB, MIB - 1))
    assert not core.has_news()
    core.answered(core.read(2 * MIB - 1, 1))
    assert core.has_news()
    assert core.core.news() == ([(HANDLE, 0, 2 * MIB, 3)], [])
    assert not core.has_news()


def test_wanted_chunks_are_told_once_and_as_runs(core: Core) -> None:
    core.core.landed(core.number, 3, 4)
    for offset, size in ((0, 2 * MIB), (MIB, MIB), (2 * MIB, 3 * MIB), (10 * MIB, 1)):
        core.read(offset, min(size, MIB))
        core.read(offset + size - 1, 1)
    core.parked(8)
    wants = [(core.number, 0, 3, 0), (core.number, 4, 5, 0), (core.number, 10, 11, 0)]
    assert core.has_news()
    assert core.core.news()[1] == wants
    core.read(0, 1)
    core.parked(9)
    assert core.core.news()[1] == []
    core.core.declined(core.number, 0, 64)
    for _ in range(9):
        core.popped()
    core.read(0, 1)
    core.parked(1)
    assert core.core.news()[1] == [(core.number, 0, 1, 0)]


def test_chunks_that_are_coming_are_wanted_only_after_a_while(core: Core) -> None:
    core.core.mark(HANDLE, 1 << 62)
    began = time.monotonic()
    core.core.coming(core.number, 0, 8)
    core.read(MIB, MIB)
    core.parked(1)
    early = core.has_news() or core.core.news()[1]
    assert not early or time.monotonic() - began >= LATER
    until(core.has_news)
    assert time.monotonic() - began >= LATER
    assert core.core.news()[1] == [(core.number, 1, 2, 0)]


def test_chunks_that_came_are_no_news_and_wanted_at_once_the_next_time(core: Core) -> None:
    core.core.mark(HANDLE, 1 << 62)
    core.core.coming(core.number, 0, 8)
    number = core.read(MIB, 10)
    core.parked(1)
    core.core.landed(core.number, 0, 2)
    core.answered(number)
    core.core.cleared(core.number, 1, 2)
    number = core.read(MIB, 10)
    core.parked(1)
    assert core.has_news()
    assert core.core.news()[1] == [(core.number, 1, 2, 0)]
    time.sleep(2 * LATER)
    core.core.news()
    assert not core.has_news()


def test_chunks_that_do_not_come_after_all_are_wanted_at_once(core: Core) -> None:
    core.core.coming(core.number, 0, 8)
    core.core.given_up(core.number, 2, 4)
    core.read(2 * MIB, MIB)
    core.parked(1)
    assert core.core.news()[1] == [(core.number, 2, 3, 0)]
    core.read(5 * MIB, 10)
    core.parked(2)
    core.core.given_up(core.number, 4, 6)
    assert core.core.news()[1] == [(core.number, 5, 6, 0)]


def test_more_runs_of_wanted_chunks_than_fit_are_told_next_time() -> None:
    with started(size=8 << 20, chunk=4096) as core:
        for chunk in range(1, 2048, 2):
            core.core.landed(core.number, chunk, chunk + 1)
        for offset in range(0, 8 << 20, MIB):
            core.read(offset, MIB)
        core.parked(8)
        other = core.add(8 << 20, 4096)
        assert core.core.attach(OTHER, other)
        core.read(0, MIB, OTHER)
        core.parked(9)
        first = core.core.news()[1]
        assert first == [(core.number, chunk, chunk + 1, 0) for chunk in range(0, 2048, 2)]
        assert core.has_news()
        assert core.core.news()[1] == [(other, 0, 256, 0)]


def test_chunks_land_only_while_the_epoch_is_what_it_was(core: Core) -> None:
    epoch = core.core.epoch(core.number)
    core.core.cleared(core.number, 5, 6)
    assert not core.core.landed(core.number, 0, 1, epoch)
    number = core.read(0, 10)
    core.parked(1)
    assert core.core.landed(core.number, 0, 1, core.core.epoch(core.number))
    core.answered(number)
    core.core.shut(core.number)
    assert not core.core.landed(core.number, 0, 1)
    core.core.drop(core.number)
    assert not core.core.landed(core.number, 0, 1)
    assert core.core.epoch(core.number) == 0


def test_a_read_waits_for_all_of_its_chunks(core: Core) -> None:
    number = core.read(MIB - 10, 20)
    core.parked(1)
    core.core.landed(core.number, 1, 2)
    core.settled()
    core.parked(1)
    core.core.landed(core.number, 0, 1)
    assert core.answered(number) == 20


def test_an_empty_run_and_one_behind_the_end_are_none(core: Core) -> None:
    core.read(MIB - 10, 20)
    core.parked(1)
    for run in ((1, 1), (2, 1), (0, 65), (64, 65), (0, -1)):
        core.core.declined(core.number, *run)
        core.core.failed(core.number, *run, errno.EIO)
        core.core.cleared(core.number, *run)
        assert not core.core.landed(core.number, *run)
    core.parked(1)
    assert core.core.epoch(core.number) == 0


def test_parked_reads_fail_are_interrupted_or_handed_over(core: Core) -> None:
    before = time.monotonic_ns()
    message = read_request(core.connection.number(), HANDLE, 5, 10, inode=7, thread=8)
    number = core.connection.send(message)
    ((*found, since),) = core.parked(1)
    assert found == [number, 8, 7, 5, 0, HANDLE, 10]
    assert before <= since <= time.monotonic_ns()
    assert not core.core.interrupt(number + 2, errno.EINTR)
    assert core.core.interrupt(number, errno.EINTR)
    assert not core.core.interrupt(number, errno.EINTR)
    core.answered(number, errno.EINTR)
    number = core.read(5, 10)
    core.parked(1)
    core.core.failed(core.number, 0, 1, errno.EREMOTEIO)
    core.answered(number, errno.EREMOTEIO)
    for give_up in (core.core.shut, core.core.drop):
        core.read(5, 10)
        give_up(core.number)
        core.popped()


def test_a_handle_is_attached_once_and_detach_says_whether_it_was_read(core: Core) -> None:
    assert not core.core.attach(HANDLE, core.number)
    assert not core.core.attach(OTHER, core.number + 1)
    assert core.core.attach(OTHER, core.number)
    core.core.landed(core.number, 0, 1)
    core.answered(core.read(0, 10))
    assert core.core.detach(HANDLE)
    assert not core.core.detach(OTHER)
    assert not core.core.detach(OTHER)
    core.read(0, 10)
    core.popped()


def test_reads_are_counted_by_latency_and_told_while_somebody_listens(core: Core) -> None:
    cache, cold, errors = core.core.latencies()
    core.core.landed(core.number, 0, 1)
    core.answered(core.read(5, 10))
    core.settled()  # a read is counted and told of after its answer
    core.core.listen(True)
    message = read_request(core.connection.number(), HANDLE, 7, 10, inode=9, thread=8)
    core.answered(core.connection.send(message))
    parked = core.read(MIB, 10)
    core.parked(1)
    time.sleep(0.02)
    core.core.interrupt(parked, errno.EINTR)
    core.answered(parked, errno.EINTR)
    core.settled()
    told = list(FINISHED.iter_unpack(core.core.finished()[0]))
    core.core.listen(False)
    core.answered(core.read(9, 10))
    core.settled()
    assert core.core.finished() == (b"", 0)
    assert [one[2:] for one in told] == [
        (9, HANDLE, 7, 10, 8, 0, 0),
        (1, HANDLE, MIB, 0, 1, errno.EINTR, 1),
    ]
    assert told[1][1] >= 20_000_000  # ns
    found = core.core.latencies()
    assert sum(found[0][1]) - sum(cache[1]) == 3
    assert [new - old for new, old in zip(found[1][1], cold[1], strict=True)].index(1) >= 11
    assert found[2][errno.EINTR] - errors.get(errno.EINTR, 0) == 1


def test_a_listener_that_is_slow_is_told_how_many_reads_it_missed(core: Core) -> None:
    core.core.landed(core.number, 0, 1)
    core.core.listen(True)
    for _ in range(4100):  # 4096 have room
        core.answered(core.read(5, 10))
    core.settled()
    reads, left_out = core.core.finished()
    core.core.listen(False)
    assert (len(reads) // FINISHED.size, left_out) == (4096, 4)


def test_a_handle_counts_what_was_read(core: Core) -> None:
    core.core.landed(core.number, 0, 1)
    core.answered(core.read(0, 10))
    core.answered(core.read(10, 20))
    core.read(MIB, 5)
    core.parked(1)
    assert core.core.totals(HANDLE) == (3, 35)
    core.core.declined(core.number, 1, 2)  # Python answers it, and counts it
    core.popped()
    assert core.core.totals(HANDLE) == (2, 30)
    assert core.core.totals(OTHER) == (0, 0)


def test_bytes_end_with_the_object(core: Core) -> None:
    core.core.landed(core.number, 63, 64)
    assert core.answered(core.read(64 * MIB - 5, 100)) == 5
    assert core.answered(core.read(64 * MIB, 100)) == 0
    assert core.answered(core.read((1 << 64) - 1, 100)) == 0


def test_there_may_be_1024_objects_and_no_number_is_used_twice(core: Core) -> None:
    numbers = [core.add(10, 10) for _ in range(1023)]
    assert len({core.number, *numbers}) == 1024
    assert all(numbers)
    assert core.add(10, 10) == 0
    core.core.drop(numbers[7])
    assert core.add(10, 10) not in (0, core.number, *numbers)
    for size, chunk in ((0, 1), (1, 0), (-1, 1), (1, -1)):
        with pytest.raises(ValueError, match="an object of"):
            core.add(size, chunk)
    with pytest.raises(OSError, match="Bad file descriptor"):
        core.core.add(-1, 10, 10, True)


def test_statistics_count_what_was_done(core: Core) -> None:
    before = core.core.statistics()

    def since() -> dict[str, int]:
        return {name: count - before[name] for name, count in core.core.statistics().items()}

    core.core.landed(core.number, 0, 1)
    core.answered(core.read(0, 10))
    core.read(MIB, 10)
    core.parked(1)
    core.core.declined(core.number, 1, 2)
    core.popped()
    nothing = {"retried": 0, "refused": 0}
    done = {"answered": 1, "bytes": 10, "parked": 1, "handed_over": 1, **nothing}
    assert until(lambda: since() == done)
