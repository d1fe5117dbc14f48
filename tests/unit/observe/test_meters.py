"""Counters that go on from worker to worker, through a file of which a kill may tear a part."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from axonfs.observe.family import Distribution, Family, family
from axonfs.observe.meters import SLOT, Meters


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


def test_other_content_counts_nothing(file: int) -> None:
    os.pwrite(file, b"1 2 3\n[]", 0)
    os.pwrite(file, os.urandom(100), SLOT)
    assert Meters(file).total(counted(5))[0].samples == {("https://5",): 5}
