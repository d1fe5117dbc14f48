"""How long the HTTP client waits, and how often it retries.

Pure. documents.py, bodies.py and the fetcher use these limits.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Self

# Seconds. A longer Retry-After is cut to this.
RETRY_AFTER_MAX = 60.0

# Seconds to connect to a site cache: an address that swallows packets costs no more. A packet that
# is lost is sent again after one second, and after three.
CONNECT_NEAR = 3.5

# Fewer bytes than this within the deadline are not progress: at that rate a small model takes a
# day, and a server that sends single bytes would hold a reader for ever.
PROGRESS_BYTES = 256 << 10

# A document may take this many deadlines in total, even with progress, because every listing waits
# for the index. The largest index, 64 MiB, then needs 110 KiB/s at the default deadline.
DEADLINES_MAX = 10

# The most bytes of an answer beside the requested body: headers, chunk sizes, trailers, interim
# answers. HTTP itself sets no limit.
OVERHEAD_BYTES = 1 << 20

# An unused body (an error page) is read up to this size and for this time, so that its connection
# can be reused.
DRAIN_BYTES = 64 << 10
DRAIN_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, except `attempts`.

    Args:
        connect: to resolve the name, connect, and complete the TLS handshake.
        first_byte: from the request to the first byte of the answer.
        stall: from one byte to the next.
        deadline: without progress, over all attempts (PROGRESS_BYTES within one body).
        attempts: requests for one document, the first included.
        backoff_min, backoff_max: the pause before the first retry; it doubles up to the maximum.
    """

    connect: float = 10.0
    first_byte: float = 30.0
    stall: float = 30.0
    deadline: float = 60.0
    attempts: int = 6
    backoff_min: float = 0.2
    backoff_max: float = 10.0

    @classmethod
    def within(cls, deadline: float, retries: int = 5) -> Self:
        """The default limits, shortened so that a second attempt fits into `deadline`."""
        usual, half = cls(deadline=deadline, attempts=retries + 1), deadline / 2
        return replace(
            usual,
            connect=min(usual.connect, half),
            first_byte=min(usual.first_byte, half),
            stall=min(usual.stall, half),
        )

    def at_most(self, patience: float | None) -> Self:
        """These limits, with waits for a connection or a byte cut to `patience`, if given."""
        if patience is None:
            return self
        return replace(
            self,
            connect=min(self.connect, patience),
            first_byte=min(self.first_byte, patience),
            stall=min(self.stall, patience),
        )

    def near(self) -> Self:
        """These limits for a site cache. One that waits for its source is not dead, so only the
        time to connect is shorter."""
        return replace(self, connect=min(self.connect, CONNECT_NEAR))

    def pause(
        self,
        attempt: int,
        retry_after: float | None = None,
        *,
        draw: Callable[[], float] = random.random,
    ) -> float:
        """How long to wait after failed attempt number `attempt` (from 1).

        With full jitter, so that clients that failed together do not retry together. The wait that
        the source asked for is added to it.
        """
        span = min(self.backoff_max, self.backoff_min * 2.0 ** min(attempt - 1, 32))
        return (retry_after or 0.0) + span * draw()


def parse_retry_after(text: str | None, now: float) -> float | None:
    """The seconds in a Retry-After header, at most RETRY_AFTER_MAX; None if it is malformed.

    Args:
        now: unix seconds, for the header's date form.
    """
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        # More than nine digits exceed the maximum, and int() rejects thousands of digits.
        return RETRY_AFTER_MAX if len(text) > 9 else min(float(text), RETRY_AFTER_MAX)
    wait = _until(text, now)
    return None if wait is None else min(max(wait, 0.0), RETRY_AFTER_MAX)


def _until(date: str, now: float) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        wait = moment.timestamp() - now
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return wait if math.isfinite(wait) else None
