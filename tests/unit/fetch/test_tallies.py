"""What a source sent, by the source and its site caches; and what came of readahead."""

from __future__ import annotations

import errno
from functools import partial

from axonfs.errors import DeadlineError, UnavailableError
from axonfs.fetch.readahead import Ahead, Readahead
from axonfs.fetch.tallies import MOST, MOST_ERRORS, OTHER, PERIOD, Tallies
from axonfs.http_client import Cache
from axonfs.http_client.urls import split_url

MIB = 1 << 20


def refused(status: int) -> UnavailableError:
    error = UnavailableError("no")
    error.status = status
    return error


def test_a_source_and_its_cache_count_apart() -> None:
    tallies, cache = Tallies(), Cache(split_url("http://near/"))
    for tally, size in (
        (tallies.of("https://one", None), 3),
        (tallies.of("https://one", cache), 5),
    ):
        tally.asked()
        tally.received(size, 0.0)
    tallies.of("https://one", None).failed(refused(503))
    tallies.of("https://one", None).failed(DeadlineError("late"))
    rows = {row["cache"]: row for row in tallies.statistics(0.0)}
    assert {name: row["bytes"] for name, row in rows.items()} == {None: 3, "http://near": 5}
    assert rows[None]["errors"] == {"503": 1, errno.errorcode[errno.ETIMEDOUT]: 1}
    assert tallies.requests == 2


def test_a_source_of_which_no_byte_came_for_a_deadline() -> None:
    tallies = Tallies()
    tally = tallies.of("https://one", None)
    missing, busy = refused(404), refused(503)
    busy.transient = True
    for ended in (partial(tally.failed, missing), partial(tally.received, 1, 100.0)):
        tally.late(DeadlineError("late"), since=99.0)
        tally.failed(busy)
        (row,) = tallies.statistics(0.0)
        assert row["fault"] == "late"
        assert row["since"] > 0
        ended()
        assert tallies.statistics(0.0)[0]["fault"] is None
    tally.late(DeadlineError("late"), since=99.0)  # others got bytes meanwhile
    assert tally.fault is None


def test_the_rate_is_of_late() -> None:
    tally = Tallies().of("https://one", None)
    for step in range(5):
        tally.received(MIB, 100 + step * PERIOD / 2)
        if step >= 2:
            assert tally.rate(100 + step * PERIOD / 2) == 2 * MIB / PERIOD
    assert tally.rate(100 + 7 * PERIOD) == 0
    tally.received(MIB, 200.0)  # after a pause; how long this took to come is not known
    assert tally.rate(200.0) == 0


def test_sources_without_end_share_a_tally() -> None:
    tallies = Tallies()
    for number in range(MOST + 7):
        tallies.of(f"https://{number}", None).asked()
    rows = {row["source"]: row["requests"] for row in tallies.statistics(0.0)}
    assert len(rows) == MOST + 1
    assert rows[OTHER] == 7


def test_errors_without_end_are_few_kinds() -> None:
    tally = Tallies().of("https://one", None)
    for number in range(400, 400 + MOST_ERRORS + 7):
        tally.failed(refused(number))
    tally.failed(refused(400))
    assert len(tally.errors) == MOST_ERRORS + 1
    assert (tally.errors[OTHER], tally.errors["400"]) == (7, 2)


def test_what_came_of_readahead() -> None:
    readahead = Readahead(1 << 30)
    for at in range(4):
        readahead.on_read(at * MIB, MIB)
    assert readahead.used == 2 * MIB  # the third and the fourth were asked for ahead
    left = readahead.asked - 2 * MIB
    assert left > 0
    assert Ahead().with_open(readahead) == Ahead(2 * MIB + left, 2 * MIB, 0)
    assert Ahead().with_closed(readahead, whole=False) == Ahead(2 * MIB + left, 2 * MIB, left)
    assert Ahead().with_closed(readahead, whole=True) == Ahead(2 * MIB + left, 2 * MIB + left, 0)
