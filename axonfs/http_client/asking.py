"""Whom to ask for the slices of an object: the site caches of each in their order, then its source.

For who reads an object from its start to its end; axonfs.fetch asks for what readers want in the
same order (fetch/ways.py). Sends nothing. One thread.
"""

from __future__ import annotations

from axonfs.errors import AxonError
from axonfs.http_client import blame
from axonfs.http_client.caches import Cache, SiteCaches, slice_key
from axonfs.http_client.location import Location


class Asking:
    """The attempts at one object.

    Args:
        sha256: of the object, by which caches have it.
        fallback: whether the source itself may be asked.
        name: of the object, if it has no sha256; by default its URL.
        avoided: caches that are not asked.
    """

    def __init__(
        self,
        site: SiteCaches,
        sha256: str | None,
        *,
        fallback: bool,
        name: str | None = None,
        avoided: frozenset[Cache] = frozenset(),
    ) -> None:
        self.cache: Cache | None = None  # that was asked last
        self._site = site
        self._sha256 = sha256
        self._name = sha256 or name
        self._fallback = fallback
        self._avoided = avoided
        self._begin()

    def _begin(self) -> None:
        self._tried: set[Cache] = set()  # of this slice
        self._vain = 0  # of those, the ones that did not have it
        self._passed: AxonError | None = None  # the last failure

    def choose(self, location: Location, number: int, *, ranged: bool) -> Location:
        """Where to ask for slice `number` of the object that its source has at `location`.

        Args:
            ranged: whether a cache that answers with the whole object is to blame.

        Raises:
            AxonError: no cache is left, and the source may not be asked.
        """
        self.cache = None
        if not self._site.covers(location.url):
            if self._fallback:
                return location
            raise self._site.elsewhere(location.url)
        if self._vain < blame.ENOUGH:
            key = slice_key(self._name or location.url, number)
            self.cache = self._site.choose(key, self._tried | self._avoided)
        if self.cache is not None:
            return location.through(self.cache, self._sha256, ranged=ranged)
        passed, vain = self._passed, self._vain
        self._begin()
        if self._fallback:
            return location
        if passed and vain:
            raise passed.located()
        raise self._site.none_left(location.url) from passed

    def pass_over(self, exc: AxonError) -> bool:
        """Whether to go on at once without the cache that was asked, which is to blame."""
        if self.cache is None or not blame.of_cache(exc):
            return False
        self._tried.add(self.cache)
        self._passed = exc
        if blame.of_object(exc):
            self._vain += 1
        else:
            blame.set_aside(self.cache, exc)
        return True

    def received(self, count: int) -> None:
        """Note that `count` bytes came."""
        if self.cache is not None:
            self.cache.received(count)

    def went_well(self) -> None:
        """Note that a slice is whole."""
        if self.cache is not None and self.cache.set_aside:
            self.cache.answered()
        self._begin()
