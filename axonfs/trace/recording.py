"""What one worker records, from the moment at which its `Recording` is made until it is left.

Below recorder.py, which writes the records to the file. Trio thread only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import trio

from axonfs.fetch import Fetcher
from axonfs.fuse.operations import Operations
from axonfs.trace.events import Events
from axonfs.trace.file import TraceFile
from axonfs.trace.hearing import Hearing
from axonfs.trace.records import Record, began, header
from axonfs.vfs.files import Files
from axonfs.waits import Waits


class Recording:
    """The records of one worker for `file`. `since` is the unix time at which the trace began,
    maybe with an earlier worker."""

    def __init__(
        self,
        file: TraceFile,
        fetcher: Fetcher,
        files: Files,
        operations: Operations,
        waits: Waits,
        about: Mapping[str, Any],
    ) -> None:
        self.file = file
        now, clock = time.time(), trio.current_time()
        known = began(file.head)
        self.since = now if known is None else known
        # A clock that was set back since an earlier worker makes no negative times.
        self._events = Events(clock - max(now - self.since, 0.0))
        self._operations = operations
        self._waits = waits
        self._waited = waits.waited
        if known is None:
            self._events.put(header(now))
        self._events.put(["worker", self._events.since(clock), dict(about)])
        self._hearing = Hearing(self._events, files)
        self._watching = ExitStack()
        self._watching.enter_context(fetcher.watched(self._events))
        self._listener = self._watching.enter_context(operations.listen(gathers=True))

    def taken(self) -> list[Record]:
        """What happened since the last call."""
        now = trio.current_time()
        self._operations.gather()
        self._hearing.hear(*self._listener.take())
        self._events.note_stages()
        self._note_waits(now)
        return self._events.take(now)

    def _note_waits(self, now: float) -> None:
        """Note what readers have waited for since the last call, if anything."""
        waited = self._waits.waited
        if waited == self._waited:
            return
        more = {
            cause: round(seconds - self._waited[cause], 3)
            for cause, seconds in waited.items()
            if seconds > self._waited[cause]
        }
        self._events.put(["waited", self._events.since(now), more])
        self._waited = waited

    def leave(self, why: str | None = None) -> list[Record]:
        """Stop recording; returns the last records.

        Args:
            why: why the trace ends here; None where the next worker goes on.
        """
        records = self.taken()
        self._watching.close()
        if why is not None:
            records.append(["stop", self._events.since(trio.current_time()), why])
        return records
