"""Counters that go on from worker to worker, through a file of which a kill may tear a part."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from axonfs.observe.family import Distribution, Family, Labels, Value, family
from axonfs.observe.meters import MOST_SERIES, SLOT, Meters


@pytest.fixture
def file() -> Iterator[int]:
    descriptor = os.memfd_create("meters")
    yield descriptor
    os.close(descriptor)


def counted(*numbers: int) -> list[Family]:
    samples = {f"https://{number}": number for number in numbers}
    took = Distribution(2, 0.5, {0.1: 1, 1.0: 1})
    return [
        family("counter", "source_requests", "Requests.", samples, "source"),
        family("histogram", "read_duration_seconds", "Reads.", {"cold": took}, "kind"),
        family("gauge", "waits", "Waits.", 7),
    ]


def test_the_next_worker_adds_to_what_was_saved(file: int) -> None:
    Meters(file).save(counted(1, 2))
    second = Meters(file).total(counted(2, 3))
    Meters(file).save(second)
    requests, reads, waits = Meters(file).total(counted(3))
    urls = {labels[0]: value for labels, value in requests.samples.items()}
    assert urls == {"https://1": 1, "https://2": 4, "https://3": 6}
    assert reads.samples[("cold",)] == Distribution(6, 1.5, {0.1: 3, 1.0: 3})
    assert waits.samples == {(): 7}, "a gauge is of this worker alone"


@pytest.mark.parametrize("at", [0, 1, 40])
def test_a_torn_save_leaves_the_one_before_it(file: int, at: int) -> None:
    meters = Meters(file)
    meters.save(counted(1))
    meters.save(meters.total(counted(1, 2)))  # in slot 0
    os.pwrite(file, b"\0", at)
    requests, *_ = Meters(file).total(counted())
    assert requests.samples == {("https://1",): 1}


def test_since_when_they_count(file: int) -> None:
    """A receiver of OTLP takes counters with another beginning for new ones."""
    first = Meters(file)
    first.save(counted(1))
    again = Meters(file)
    again.save(again.total(counted(2)))
    assert Meters(file).began == again.began == first.began
    assert "began" not in {one.name for one in again.total(counted(1))}


def test_series_beyond_the_bound_are_those_that_only_earlier_workers_counted(
    file: int, caplog: pytest.LogCaptureFixture
) -> None:
    """As of site caches whose addresses change for years: what this worker counts goes on."""
    Meters(file).save(counted(*range(MOST_SERIES)))
    again = Meters(file)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            requests, reads, _waits = again.total(counted(7, MOST_SERIES))
    assert requests.samples == {("https://7",): 14, (f"https://{MOST_SERIES}",): MOST_SERIES}
    assert reads.samples[("cold",)] == Distribution(4, 1.0, {0.1: 2, 1.0: 2})
    assert caplog.messages == ["15999 counters of earlier workers begin anew: there are 16002"]


def test_the_most_and_longest_series_fit_in_a_slot(file: int) -> None:
    text = "\u6a21" * 194
    samples: dict[Labels, Value] = {
        (text, text, f"{number:06}{text}"): number for number in range(MOST_SERIES)
    }
    errors = Family("axonfs_source_errors", "counter", "", ("source", "cache", "error"), samples)
    meters = Meters(file)
    for _ in range(2):
        meters.save([errors])
    (again,) = Meters(file).total([errors.having({})])
    assert again.samples == samples
    assert os.pread(file, 1, 2 * SLOT) == b""


def test_other_content_counts_nothing(file: int) -> None:
    os.pwrite(file, b"1 2 3\n[]", 0)
    os.pwrite(file, os.urandom(100), SLOT)
    assert Meters(file).total(counted(5))[0].samples == {("https://5",): 5}
