"""Shows progress on stderr: one line that is redrawn on a terminal, else a plain line now and then.

Takes the events of axonfs.service (`spec`, `path`, `done`, `total`, `fetched`, in bytes). If a line
is too long for the terminal, names are shortened first, then the bar; percentage, rate and time
left stay. Main thread only.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from axonfs.cli.columns import clip, clip_start, width
from axonfs.cli.output import deferred, is_new, warn_deferred
from axonfs.names import printable
from axonfs.units import duration, share, size

_BAR = 24
_SHORT_BAR = 10
# With fewer columns than this a shortened name is useless.
_SHORT_NAME = 12
_COMMIT_DIGITS = 8
_COMMIT = re.compile(r"@([0-9a-f]{40})\b")
# Shortest and longest pause between two plain lines (in a log file, a CI job), in seconds: it grows
# with the duration of the work.
_PLAIN_PAUSE = (5.0, 60.0)
_REDRAW_PAUSE = 0.1
# The rate is the average over this many seconds.
_RATE_SPAN = 15.0


class ProgressDisplay:
    """The progress display of one command: a context manager, called with each event."""

    def __init__(
        self,
        stream: TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
        width: Callable[[], int] | None = None,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._width = width or (lambda: _columns_of(stream))
        self._moving = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._started = clock()
        # A terminal shows progress at once. A log shows no progress of short work, only its result.
        self._shown = clock() - (_REDRAW_PAUSE if self._moving else 0)
        self._drawn = False
        self._pace = Pace()
        self.last: dict[str, Any] | None = None

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._clear()

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event."""
        if event.get("event") == "note":
            if is_new(text := str(event.get("text", ""))):
                self._line(printable(text, 1000))
        elif event.get("event") == "progress":
            self._progress(event)

    def _progress(self, event: dict[str, Any]) -> None:
        if deferred:
            self._clear()
            warn_deferred()
        now = self._clock()
        # For a pin keep the last event of the fetch, not those of the check after it.
        if self.last is None or "fetched" in event or "fetched" not in self.last:
            self.last = event
        self._pace.note(event, now)
        if now - self._shown < self._pause(now):
            return
        self._shown = now
        figures, more = describe(event, self._pace.rate(now))
        if self._moving:
            self._draw(fitted(event, figures, more, max(self._width() - 1, 20)))
        else:
            self._line(f"{printable(str(event.get('spec', '')))} {', '.join(figures + more)}")

    def _pause(self, now: float) -> float:
        if self._moving:
            return _REDRAW_PAUSE
        least, most = _PLAIN_PAUSE
        return min(max(least, (now - self._started) / 10), most)

    def _line(self, text: str) -> None:
        self._clear()
        self._write(f"{text}\n")

    def _draw(self, text: str) -> None:
        self._write(f"\r\x1b[K{text}")
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False

    def _write(self, text: str) -> None:
        with suppress(OSError):  # stderr was closed: the work continues
            self._stream.write(text)
            self._stream.flush()


class Pace:
    """The rate of one piece of work, from its events of the last seconds."""

    def __init__(self) -> None:
        self._work: tuple[object, ...] = ()
        self._moments: deque[tuple[float, int]] = deque()

    def note(self, event: dict[str, Any], now: float) -> None:
        """Record an event. If it is about other work, or shows less than before, start over."""
        fetched = event.get("fetched")
        done = int(event["done"] if fetched is None else fetched)
        work = (event.get("spec"), event["total"], fetched is None)
        if work != self._work or (self._moments and done < self._moments[-1][1]):
            self._work = work
            self._moments.clear()
        self._moments.append((now, done))
        # Keep one moment at or before the start of the span, so that the span is covered.
        while len(self._moments) > 2 and now - self._moments[1][0] >= _RATE_SPAN:
            self._moments.popleft()

    def rate(self, now: float) -> float | None:
        """Bytes per second; None in the first second, whose rate would be misleading."""
        if not self._moments or now - self._moments[0][0] < 1:
            return None
        began, before = self._moments[0]
        return (self._moments[-1][1] - before) / (now - began)


def _columns_of(stream: TextIO) -> int:
    """The width of the terminal; 80 if it is unknown."""
    with suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80


def bar(done: int, total: int, length: int = _BAR) -> str:
    """`[#####-----]`."""
    filled = length if done >= total else done * length // total
    return f"[{'#' * filled}{'-' * (length - filled)}]"


def describe(event: dict[str, Any], rate: float | None) -> tuple[list[str], list[str]]:
    """Figures, the most important first, and more details for wide terminals.

    `45 % of 2.7 GiB`, `210 MiB/s`, `7 s left`; `1.2 GiB fetched`, `5 MiB was local`.
    """
    done, total, fetched = event["done"], event["total"], event.get("fetched")
    figures = [f"{share(done, total)} of {size(total)}"]
    if rate is not None and done < total:
        figures.append(f"{size(rate)}/s")
        if rate >= 1:
            figures.append(f"{duration((total - done) / rate)} left")
    more = [f"{size(fetched)} fetched"] if fetched else []
    if fetched is not None and done > fetched:
        more.append(f"{size(done - fetched)} was local")
    return figures, more


def fitted(event: dict[str, Any], figures: list[str], more: list[str], columns: int) -> str:
    """The redrawn line: the figures, and as much of bar, names and `more` as `columns` hold."""
    parts = [*figures, *more]
    roomy = columns - width(_named(event)) - _BAR - 4
    while len(parts) > len(figures) and width(", ".join(parts)) > roomy:
        parts.pop()
    while len(parts) > 1 and width(", ".join(parts)) > columns:
        parts.pop()
    text = ", ".join(parts)
    room = columns - width(text)
    length = next((each for each in (_BAR, _SHORT_BAR) if room > each + 3 + 2 * _SHORT_NAME), 0)
    drawn = bar(event["done"], event["total"], length) + " " if length else ""
    name = _name(event, room - len(drawn) - 1)
    return clip(f"{drawn}{name} {text}" if name else f"{drawn}{text}", columns)


def _named(event: dict[str, Any]) -> str:
    return _COMMIT.sub(
        lambda match: f"@{match[1][:_COMMIT_DIGITS]}", printable(str(event.get("spec", "")))
    )


def _name(event: dict[str, Any], columns: int) -> str:
    """The model and, if there is room, the file."""
    spec, path = _named(event), printable(str(event.get("path", "")))
    left = columns - width(spec) - 1
    if path and left >= min(_SHORT_NAME, width(path)):
        return f"{spec} {clip_start(path, left)}"
    return clip_start(spec, columns) if columns >= min(_SHORT_NAME, width(spec)) else ""
