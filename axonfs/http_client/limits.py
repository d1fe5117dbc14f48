"""How long the HTTP layer waits, and how often it asks again.

Pure. The two clients beside it (documents.py, bodies.py) and the fetcher take their patience
from here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Self

# A source that wants to be left alone for longer is asked again after this many seconds.
RETRY_AFTER_MAX = 60.0

# Fewer bytes than this within the deadline are no progress: a line that slow would need a day for
# a small model, and a server that drips a byte now and then would hold a reader for ever.
PROGRESS_BYTES = 256 << 10

# A document takes no longer than so many deadlines, however it progresses: everyone waits for an
# index. The largest, 64 MiB, then needs 110 KiB a second at the usual deadline.
DEADLINES_MAX = 10

# What an answer may cost on the wire beside the body that was asked for: headers, chunk sizes,
# trailers, interim answers. HTTP bounds none of them.
OVERHEAD_BYTES = 1 << 20

# An answer's body that nobody wants (an error page) is read up to here, and waited for no longer,
# so that its connection can be used again.
DRAIN_BYTES = 64 << 10
DRAIN_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, except `attempts`.

    Args:
        connect: to resolve, connect and shake hands.
        first_byte: from the request to the first byte of the answer.
        stall: from one byte to the next.
        deadline: without progress, over all attempts (PROGRESS_BYTES within one body).
        attempts: requests for one document, the first included.
        backoff_min, backoff_max: the pause before the first retry, and its doubling's end.
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
        """The usual patience, or less where it would leave no second attempt within `deadline`."""
        usual, half = cls(deadline=deadline, attempts=retries + 1), deadline / 2
        return replace(
            usual,
            connect=min(usual.connect, half),
            first_byte=min(usual.first_byte, half),
            stall=min(usual.stall, half),
        )

    def at_most(self, patience: float | None) -> Self:
        """These limits, with no longer a wait for a connection or a byte than `patience`."""
        if patience is None:
            return self
        return replace(
            self,
            connect=min(self.connect, patience),
            first_byte=min(self.first_byte, patience),
            stall=min(self.stall, patience),
        )

    def pause(
        self,
        attempt: int,
        retry_after: float | None = None,
        *,
        draw: Callable[[], float] = random.random,
    ) -> float:
        """How long to wait after failed attempt number `attempt` (from 1).

        Full jitter, so that clients that failed together do not return together; on top of
        what the source asked for, which is never undercut.
        """
        span = min(self.backoff_max, self.backoff_min * 2.0 ** min(attempt - 1, 32))
        return (retry_after or 0.0) + span * draw()


def parse_retry_after(text: str | None, now: float) -> float | None:
    """Seconds that a Retry-After header asks for, at most RETRY_AFTER_MAX; None if unreadable.

    Args:
        now: unix seconds, for the header's date form.
    """
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        # Beyond a few digits it is the cap anyway, and int() refuses thousands of them.
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
