"""Who is told which chunks of an object may be served: threads that read its file by themselves.

Below presence. An object has one watcher while it is held, `UNWATCHED` by default.
"""

from __future__ import annotations

from typing import Protocol

from axonfs.ranges import Range


class Watcher(Protocol):
    """Is told in any thread, mostly under the index's writer lock; must not block."""

    def landed(self, chunks: Range) -> None:
        """The chunks are usable from here on."""

    def cleared(self, chunks: Range) -> None:
        """The chunks must not be served any more; their bytes may change once this returns."""

    def coming(self, chunks: Range) -> None:
        """A request under way brings the chunks."""

    def given_up(self, chunks: Range) -> None:
        """It does not bring these."""


class _Unwatched:
    def landed(self, chunks: Range) -> None:
        pass

    def cleared(self, chunks: Range) -> None:
        pass

    def coming(self, chunks: Range) -> None:
        pass

    def given_up(self, chunks: Range) -> None:
        pass


UNWATCHED: Watcher = _Unwatched()
