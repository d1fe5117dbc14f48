"""The share of requests that each origin has of the documents client, and whether it stalls.

Beside documents.py. The share belongs to who is asked, so a redirect leaves one origin's and takes
another's. Trio only; nothing here has a checkpoint but taking a slot.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from axonfs.errors import AxonError, ShortageError
from axonfs.http_client.limits import Limits
from axonfs.http_client.stalls import Stall
from axonfs.http_client.urls import Origin

# Requests at a time of one origin, so that one that is silent keeps no other from being asked. The
# pools of connections have no limit of their own: httpcore 1.0 can lose a slot when a request is
# cancelled while it waits for one (encode/httpcore#1093); a trio limiter cannot.
CONCURRENT = 32
# Origins that are remembered; those that nothing is asked of are forgotten beyond that.
ORIGINS = 256


class Share:
    """What one origin has; `visitors` counts the documents that are being asked for there."""

    def __init__(self, deadline: float) -> None:
        self.slots = trio.CapacityLimiter(CONCURRENT)
        self.stall = Stall(deadline)
        self.visitors = 0


class Visit:
    """One document on its way: which origin is asked for it now, and how it does.

    `limits` are those of the request that went out last.
    """

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self.limits = shares.limits
        self._share: Share | None = None
        self._began = self._asked = 0.0
        self._patience: float | None = None

    def enter(self, origin: Origin) -> trio.CapacityLimiter:
        """Go to `origin`; returns its slots, of which one is to be taken for each request."""
        share = self._shares.of(origin)
        if share is not self._share:
            self.leave()
            self._share, self._began = share, trio.current_time()
            share.visitors += 1
            share.stall.began(self._began)
        return share.slots

    def leave(self) -> None:
        """No more requests go to the last origin."""
        if self._share is not None:
            self._share.visitors -= 1
            self._share.stall.ended()
        self._share = None

    def begin(self) -> Limits:
        """The limits of the request that goes out now."""
        assert self._share is not None  # it was entered
        self._asked = trio.current_time()
        self._patience = self._share.stall.patience(self._asked)
        self.limits = self._shares.limits.at_most(self._patience)
        return self.limits

    def progressed(self) -> None:
        """The origin answered, or sent a good part of a document."""
        if self._share is not None:
            self._share.stall.progressed(trio.current_time())

    @property
    def hasty(self) -> bool:
        """Whether the origin stalls, so that another attempt would wait for nothing."""
        share = self._share
        return self._patience is not None and share is not None and share.stall.open

    def failed(self, error: AxonError) -> AxonError:
        """Note that patience with the origin is over; what to raise.

        That is what opened the stall, if one was open. An origin that answered, if only to refuse,
        does not stall.
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
        known = opened.located()
        known.source = error.source
        return known


class Shares:
    """The shares of all origins."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._shares: dict[Origin, Share] = {}

    @contextmanager
    def visit(self) -> Iterator[Visit]:
        """A visit that has left its origin when the block is left."""
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
