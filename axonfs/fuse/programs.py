"""Which program a thread belongs to, by /proc. Beside operations; trio thread only.

A name may hold any byte: pass it through `names.printable` before you show it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

# Seconds for which an answer is kept: a program may become another one (exec), and one that has
# ended is known by its last name.
KEPT_SECONDS = 1.0
_MOST = 4096


class Program(NamedTuple):
    """A process. `pid` is 0 in another pid namespace; `name` is empty if it is not known."""

    pid: int
    name: str


NOBODY = Program(0, "")


class Programs:
    """The programs of the threads that ask the mount."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Program, float]] = {}

    def of(self, thread: int) -> Program:
        """The program of a thread. Takes some 30 µs, once a second for each thread."""
        if not thread:
            return NOBODY
        now = time.monotonic()
        known = self._known.get(thread)
        if known is not None and now < known[1]:
            return known[0]
        if len(self._known) >= _MOST:
            self._known.clear()
        found = _look_up(thread) or (known[0] if known else Program(thread, ""))
        self._known[thread] = found, now + KEPT_SECONDS
        return found


def _look_up(thread: int) -> Program | None:
    """The program of a thread; None if it has ended, or is hidden from this process."""
    try:
        status = Path(f"/proc/{thread}/status").read_text(errors="replace")
        pid = int(status.partition("\nTgid:")[2].split(maxsplit=1)[0])
        name = Path(f"/proc/{pid}/comm").read_bytes().removesuffix(b"\n")
    except (OSError, ValueError, IndexError):
        return None
    return Program(pid, name.decode(errors="replace"))
