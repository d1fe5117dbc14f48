"""Ranges of objects for the parts of a source that read bytes themselves: through its site caches.

What a mount's readers get goes through axonfs.fetch, which asks the caches in the same order.
Blocking, for worker threads.
"""

from __future__ import annotations

from collections.abc import Callable

from axonfs.errors import AxonError
from axonfs.http_client import Bodies, Cache, Location, SiteCaches, blame, slice_chunks, slice_key

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
) -> None:
    """As `Bodies.read`; if the source has site caches, each slice is asked of one of them, and of
    the source itself where none has it.

    Raises:
        AxonError: the fault; no cache answers, and the source may not be asked.
    """
    site = bodies.caches.of(location.url)
    if site is None:
        bodies.read(location, start, stop, size, sink, unit=unit, cancelled=cancelled)
        return
    whole, done = slice_chunks(unit) * unit, start

    def take(offset: int, piece: memoryview) -> None:
        nonlocal done
        low, high = max(offset, done), min(offset + len(piece), stop)
        if low < high:  # what came before, and all of the object where the cache knows no ranges
            done = high
            sink(low, piece[low - offset : high - offset])

    asking = _Asking(site, location, sha256)
    while done < stop and not cancelled():
        number = done // whole
        where = asking.choose(number)
        end = min((number + 1) * whole, stop)
        try:
            bodies.read(where, done, end, size, take, unit=unit, cancelled=cancelled)
        except AxonError as exc:
            asking.failed(exc)
        else:
            asking.went_well(cancelled())


class _Asking:
    """Whom to ask for the slices of one object."""

    def __init__(self, site: SiteCaches, location: Location, sha256: str | None) -> None:
        self._site = site
        self._location = location
        self._sha256 = sha256
        self._cache: Cache | None = None  # that was asked last
        self._begin()

    def _begin(self) -> None:
        self._tried: set[Cache] = set()  # of this slice
        self._vain = 0  # of those, the ones that did not have it
        self._passed: AxonError | None = None

    def choose(self, number: int) -> Location:
        """
        Raises:
            AxonError: no cache is left, and the source may not be asked.
        """
        site, url = self._site, self._location.url
        key = slice_key(self._sha256 or url, number)
        self._cache = site.choose(key, self._tried) if self._vain < blame.ENOUGH else None
        if self._cache is not None:
            return self._location.through(self._cache, self._sha256, ranged=site.fallback)
        if site.fallback:
            return self._location
        if self._passed and self._vain:
            raise self._passed.located()
        raise site.none_left(url) from self._passed

    def failed(self, exc: AxonError) -> None:
        """
        Raises:
            AxonError: it is not the cache's fault.
        """
        if self._cache is None or not blame.of_cache(exc):
            raise exc
        self._tried.add(self._cache)
        self._passed = exc
        if blame.of_object(exc):
            self._vain += 1
        else:
            blame.set_aside(self._cache, exc)

    def went_well(self, cancelled: bool) -> None:
        if self._cache is not None and self._cache.set_aside and not cancelled:
            self._cache.answered()
        self._begin()
