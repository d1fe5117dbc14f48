"""Ranges of objects for the parts of a source that read bytes themselves: through its site caches.

What a mount's readers get goes through axonfs.fetch, which asks the caches in the same order.
Blocking, for worker threads.
"""

from __future__ import annotations

from collections.abc import Callable

from axonfs.errors import AxonError
from axonfs.http_client import Asking, Bodies, Location, slice_chunks

Sink = Callable[[int, memoryview], object]


def read_near(
    bodies: Bodies,
    location: Location,
    sha256: str | None,
    start: int,
    stop: int,
    size: int,
    sink: Sink,
    *,
    unit: int,
    cancelled: Callable[[], bool],
    itself: bool = True,
    name: str | None = None,
) -> None:
    """As `Bodies.read`; if the source has site caches, each slice is asked of one of them, and of
    the source itself where none has it.

    Args:
        itself: false if the source is not asked, whatever its fallback is.
        name: of an object without a sha256, by which readers of a mount ask for it.

    Raises:
        AxonError: the fault; no cache answers, and the source may not be asked.
    """
    site = bodies.caches.of(location.url)
    if site is None:
        bodies.read(location, start, stop, size, sink, unit=unit, cancelled=cancelled)
        return
    whole, done = slice_chunks(unit) * unit, start
    asking = Asking(site, sha256, fallback=site.fallback and itself, name=name)

    def take(offset: int, piece: memoryview) -> None:
        nonlocal done
        low, high = max(offset, done), min(offset + len(piece), stop)
        if low < high:  # what came before, and all of the object where the cache knows no ranges
            sink(low, piece[low - offset : high - offset])
            done = high
            asking.received(high - low)

    while done < stop and not cancelled():
        number = done // whole
        where = asking.choose(location, number, ranged=site.fallback or not itself)
        end = min((number + 1) * whole, stop)
        try:
            bodies.read(where, done, end, size, take, unit=unit, cancelled=cancelled)
        except AxonError as exc:
            if not asking.pass_over(exc):
                raise
        else:
            if not cancelled():
                asking.went_well()
