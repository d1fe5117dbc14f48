"""Counts what each source and each site cache was asked for, what it sent, and how it failed.

Below network. Trio thread only, but for `Tallies.of`, which any thread may call.
"""

from __future__ import annotations

import errno
from collections import Counter
from typing import Any

from axonfs.errors import AxonError
from axonfs.http_client import Cache

# Pairs of source and cache that are counted apart; requests may bring registries of their own.
MOST = 256
OTHER = "other"
# Seconds over which a rate is measured.
PERIOD = 1.0


class Tally:
    """What one source sent, or one of its site caches."""

    def __init__(self) -> None:
        self.requests = self.bytes = 0
        self.errors = Counter[str]()  # by HTTP status, or by errno where there was no answer
        self._rate = self._began = 0.0
        self._since = 0

    def asked(self) -> None:
        """Count a request."""
        self.requests += 1

    def received(self, size: int, now: float) -> None:
        """Count bytes."""
        self.bytes += size
        if now - self._began >= 4 * PERIOD:  # idle in between
            self._began, self._since = now, 0
        self._since += size
        if now - self._began >= PERIOD:
            self._rate = self._since / (now - self._began)
            self._began, self._since = now, 0

    def failed(self, exc: AxonError) -> None:
        """Count a request that failed."""
        name = errno.errorcode.get(exc.errno, str(exc.errno))
        self.errors[str(exc.status or name)] += 1

    def rate(self, now: float) -> float:
        """Bytes per second of late, 0 if nothing comes any more."""
        return self._rate if now - self._began < 4 * PERIOD else 0.0


class Tallies:
    """A tally for each source, and for each of its site caches."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str | None], Tally] = {}

    def of(self, source: str, cache: Cache | None) -> Tally:
        """The tally of a source, or of the cache that stands in for it."""
        key = source, cache.name if cache else None
        if key not in self._tallies and len(self._tallies) >= MOST:
            key = OTHER, None
        return self._tallies.setdefault(key, Tally())

    @property
    def requests(self) -> int:
        """All requests."""
        return sum(tally.requests for tally in list(self._tallies.values()))

    def statistics(self, now: float) -> list[dict[str, Any]]:
        """Figures for `status`."""
        return [
            {
                "source": source,
                "cache": cache,
                "requests": tally.requests,
                "bytes": tally.bytes,
                "errors": dict(tally.errors),
                "rate": round(tally.rate(now)),
            }
            for (source, cache), tally in list(self._tallies.items())
        ]
