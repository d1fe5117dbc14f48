"""Which of the kernel's guesses one handle is declined: reads that it makes up around page faults.

Pure. The kernel cannot know whether a fault is the first of a stream or one of many at random, and
asks for a whole window either way. What is declined costs a request for each of its pages that
somebody does read, so it is declined only as long as nobody reads on.
"""

from __future__ import annotations

from axonfs.ranges import Range

# Whoever asks for so many bytes of a declined window in a row reads on: records are smaller.
RUN = 64 << 10


class Guesses:
    """What a handle was declined last, and what of that was asked for since, page by page."""

    def __init__(self) -> None:
        self._declining = True
        self._declined = self._asked = Range(0, 0)

    def decline(self, window: Range) -> bool:
        """Whether to decline a window that would have chunks fetched for nothing."""
        again = window == self._declined  # the kernel insists
        rest = window.start == self._declined.stop  # of a larger one: it may be the fault's own
        if not self._declining or again or rest:
            return False
        self._declined = window
        return True

    def on_read(self, read: Range) -> None:
        """Somebody was given these bytes."""
        if not self._declined.start <= read.start < self._declined.stop:
            return
        start = self._asked.start if self._asked.stop == read.start else read.start
        self._asked = Range(start, read.stop)
        self._declining = self._asked.size < RUN
