"""Each origin's share of the requests for documents, and whether the origin stalls.

Beside documents.py. A redirect to another origin moves a request to that origin's share. Trio only;
the only checkpoint is taking a slot.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from axonfs.errors import AxonError, ShortageError
from axonfs.http_client.limits import Limits
from axonfs.http_client.stalls import Stall
from axonfs.http_client.urls import Origin

# Maximum requests in flight to one origin, so that a silent origin does not block the others. The
# connection pools have no limit: httpcore 1.0 can lose a slot when a request is cancelled while it
# waits for one (encode/httpcore#1093). A trio limiter cannot.
CONCURRENT = 32
# Origins to remember. Beyond this number, origins without a request are forgotten.
ORIGINS = 256


class Share:
    """The share of one origin; `visitors` is the number of documents requested from it now."""

    def __init__(self, deadline: float) -> None:
        self.slots = trio.CapacityLimiter(CONCURRENT)
        self.stall = Stall(deadline)
        self.visitors = 0


class Visit:
    """The progress of one document, at the origin that is asked for it now.

    `limits` are those of the last request.
    """

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self.limits = shares.limits
        self._share: Share | None = None
        self._began = self._asked = 0.0
        self._patience: float | None = None

    def enter(self, origin: Origin) -> trio.CapacityLimiter:
        """Move to `origin`; return its slots. Each request must hold one slot."""
        share = self._shares.of(origin)
        if share is not self._share:
            self.leave()
            self._share, self._began = share, trio.current_time()
            share.visitors += 1
            share.stall.began(self._began)
        return share.slots

    def leave(self) -> None:
        """Leave the last origin: no more requests go to it."""
        if self._share is not None:
            self._share.visitors -= 1
            self._share.stall.ended()
        self._share = None

    def begin(self) -> Limits:
        """Note that a request starts now; return its limits."""
        assert self._share is not None  # it was entered
        self._asked = trio.current_time()
        self._patience = self._share.stall.patience(self._asked)
        self.limits = self._shares.limits.at_most(self._patience)
        return self.limits

    def progressed(self) -> None:
        """Note that the origin answered, or sent PROGRESS_BYTES of a document."""
        if self._share is not None:
            self._share.stall.progressed(trio.current_time())

    @property
    def hasty(self) -> bool:
        """Whether the origin stalls, so that a retry is pointless."""
        share = self._share
        return self._patience is not None and share is not None and share.stall.open

    def failed(self, error: AxonError) -> AxonError:
        """Note that the call failed with `error`; return the error to raise.

        If the origin already stalls, that is the error that opened the stall. An origin that
        answered does not stall, even if its answer was a refusal.
        """
        if self._share is None or isinstance(error, ShortageError):
            return error
        if not self._share.stall.silent(self._began):
            return error
        stall, opened, now = self._share.stall, self._share.stall.error, trio.current_time()
        if not self.hasty or opened is None:
            stall.failed(now, error, asked=self._asked)
            return error
        stall.failed(now, opened, self._patience, asked=self._asked)
        first = opened.located()
        first.source = error.source
        return first


class Shares:
    """The shares of all origins."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._shares: dict[Origin, Share] = {}

    @contextmanager
    def visit(self) -> Iterator[Visit]:
        """A visit that leaves its origin at the end of the block."""
        visit = Visit(self)
        try:
            yield visit
        finally:
            visit.leave()

    def of(self, origin: Origin) -> Share:
        """The share of `origin`."""
        if origin not in self._shares:
            if len(self._shares) >= ORIGINS:
                visited = {key: share for key, share in self._shares.items() if share.visitors}
                self._shares = visited
            self._shares[origin] = Share(self.limits.deadline)
        return self._shares[origin]
