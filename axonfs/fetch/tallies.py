"""Counts what each source and each site cache was asked for, what it sent, and how it failed.

Below network. Trio thread only, but for `Tallies.of`, which any thread may call.
"""

from __future__ import annotations

import errno
import math
import time
from collections import Counter
from typing import Any

from axonfs.errors import AxonError, CorruptError, ShortageError
from axonfs.http_client import Cache

# Pairs of source and cache that are counted apart; requests may bring registries of their own.
MOST = 256
# Kinds of errors of one of them: a source may answer with any number.
MOST_ERRORS = 32
OTHER = "other"
# Seconds over which a rate is measured.
PERIOD = 1.0


class Tally:
    """What one source sent, or one of its site caches."""

    def __init__(self) -> None:
        self.requests = self.bytes = 0
        self.errors = Counter[str]()  # by HTTP status, or by errno where there was no answer
        self.fault: AxonError | None = None  # why no byte came for a deadline, nor has since
        self._came = -math.inf  # when the last byte came
        self.since = 0.0  # when that was found, in unix seconds
        self._rate = self._began = 0.0
        self._since = 0

    def asked(self) -> None:
        """Count a request."""
        self.requests += 1

    def received(self, size: int, now: float) -> None:
        """Count bytes."""
        self.bytes += size
        self.fault, self._came = None, now
        if now - self._began >= 4 * PERIOD:  # idle in between; these came in an unknown time
            self._began, self._since, self._rate = now, 0, 0.0
        else:
            self._since += size
        if now - self._began >= PERIOD:
            self._rate = self._since / (now - self._began)
            self._began, self._since = now, 0

    def failed(self, exc: AxonError) -> None:
        """Count a request that failed. An answer that will be the same again ends a stall."""
        if isinstance(exc, CorruptError) or (exc.status is not None and not exc.transient):
            self.fault = None
        name = str(exc.status or errno.errorcode.get(exc.errno, exc.errno))
        known = name in self.errors or len(self.errors) < MOST_ERRORS
        self.errors[name if known else OTHER] += 1

    def late(self, exc: AxonError, since: float) -> None:
        """Note that what was asked for has not come since then, a deadline ago. Whether the source
        is to blame is told by what others got meanwhile."""
        if isinstance(exc, ShortageError) or self._came > since:
            return
        if self.fault is None:
            self.since = time.time()
        self.fault = exc

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
                "fault": str(tally.fault) if tally.fault else None,
                "since": tally.since,
            }
            for (source, cache), tally in list(self._tallies.items())
        ]
