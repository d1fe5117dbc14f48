"""Bodies and an origin of one object, and a reader of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from axonfs.http_client import Bodies, Limits, Location, Routes
from tests.support.faulty_origin import FaultyOrigin
from tests.support.files import write_files

UNIT = 64 << 10
SIZE = 10 * UNIT + 1234
DATA = random.Random(7).randbytes(SIZE)
FAST = Limits(connect=2, first_byte=0.3, stall=0.3, deadline=0.8)
DIRECT = Routes({})


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[FaultyOrigin]:
    with FaultyOrigin(write_files(tmp_path / "www", {"object": DATA})) as origin:
        yield origin


@pytest.fixture
def bodies() -> Iterator[Bodies]:
    with Bodies(FAST, routes=DIRECT) as bodies:
        yield bodies


class Taken:
    """A sink that keeps what it is given, and checks that pieces end at units, in order."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.bytes = b""

    def __call__(self, offset: int, view: memoryview) -> None:
        assert len(view) == min(UNIT - offset % UNIT, SIZE - offset)
        assert not self.offsets or offset == self.offsets[0] + len(self.bytes)
        self.offsets.append(offset)
        self.bytes += view


def read(
    bodies: Bodies,
    origin: FaultyOrigin,
    start: int = 0,
    stop: int = SIZE,
    *,
    location: Location | None = None,
    cancelled: Callable[[], bool] = bool,
) -> Taken:
    taken = Taken()
    location = location or Location(origin.url + "object")
    bodies.read(location, start, stop, SIZE, taken, unit=UNIT, cancelled=cancelled)
    return taken
