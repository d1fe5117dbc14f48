"""Progress of long work on stderr: one moving line on a terminal, a plain line now and then else.

Fed with the events of axonfs.service (`spec`, `path`, `done`, `total`, `fetched`, in bytes).
Main thread only.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any, TextIO

from axonfs.names import printable
from axonfs.units import share, size

_BAR = 24
# Seconds between two lines where nothing can be redrawn (a log file, a CI job).
_PLAIN_PAUSE = 5.0
_REDRAW_PAUSE = 0.1


class Progress:
    """The progress of one command; use it as a context manager and as the sink of its events."""

    def __init__(
        self,
        stream: TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
        width: Callable[[], int] = lambda: shutil.get_terminal_size().columns,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._width = width
        self._moving = stream.isatty()
        self._started = clock()
        # Short work in a log is told by its result alone; a person wants to see it move at once.
        self._shown = clock() - (_REDRAW_PAUSE if self._moving else 0)
        self._drawn = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._clear()

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event."""
        if event.get("event") == "note":
            self._line(printable(str(event.get("text", "")), 1000))
        elif event.get("event") == "progress":
            self._progress(event)

    def _progress(self, event: dict[str, Any]) -> None:
        now = self._clock()
        pause = _REDRAW_PAUSE if self._moving else _PLAIN_PAUSE
        if now - self._shown < pause:
            return
        self._shown = now
        text = describe(event, now - self._started)
        if self._moving:
            self._draw(f"{bar(event['done'], event['total'])} {text}")
        else:
            self._line(text)

    def _line(self, text: str) -> None:
        self._clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def _draw(self, text: str) -> None:
        columns = max(self._width() - 1, 20)
        self._stream.write(f"\r\x1b[K{text[:columns]}")
        self._stream.flush()
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False


def bar(done: int, total: int) -> str:
    """`[#####-----]`."""
    filled = _BAR if done >= total else done * _BAR // total
    return f"[{'#' * filled}{'-' * (_BAR - filled)}]"


def describe(event: dict[str, Any], elapsed: float) -> str:
    """`nlp/llama@1.0.0 45 % of 2.7 GiB, 210 MiB/s, 1.2 GiB fetched, 0 B was local`."""
    done, total, fetched = event["done"], event["total"], event.get("fetched")
    parts = [f"{printable(str(event.get('spec', '')))} {share(done, total)} of {size(total)}"]
    if fetched is None:  # nothing comes over the network here
        parts.append(f"{size(done / max(elapsed, 0.001))}/s")
    elif fetched:
        parts.append(f"{size(fetched / max(elapsed, 0.001))}/s")
        parts.append(f"{size(fetched)} fetched")
    if fetched is not None and done > fetched:
        parts.append(f"{size(done - fetched)} was local")
    return ", ".join(parts)
