"""Tells a load from the second file of a version that a program opens.

A program that opens weights after another file of the same version, such as config.json or another
shard, reads more than the head of one file. Pure, except for a look into /proc: takes opens and
times, and returns paths. Below prefetcher.py.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from axonfs.ahead.plan import comes_before, is_weights
from axonfs.ahead.walks import MOST_AT_ONCE, is_there
from axonfs.names import Spec

# Seconds within which the second file is opened.
RECENT_SECONDS = 10.0
# Versions whose last open is remembered.
REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class _Open:
    path: str
    program: int
    time: float


class Pairs:
    """The last open of each version, and the versions of which two files were opened."""

    def __init__(self) -> None:
        self._last: OrderedDict[Spec, _Open] = OrderedDict()
        self._found: dict[Spec, float] = {}

    def opened(self, spec: Spec, path: str, program: int, now: float) -> str | None:
        """The weights from which a load begins; None if the open does not show one.

        Programs that open the heads of many versions are none, so only some versions at a time are.

        Args:
            program: the id of its thread, 0 if it is not known. A loader has several threads, which
                stay; a shell that runs a program for each file has one after the other.
        """
        last, this = self._last.pop(spec, None), _Open(path, program, now)
        self._last[spec] = this
        if len(self._last) > REMEMBERED:
            self._last.popitem(last=False)
        if not is_weights(path) or last is None or not _together(last, this):
            return None
        self._found = {one: at for one, at in self._found.items() if now - at < RECENT_SECONDS}
        if spec not in self._found and len(self._found) >= MOST_AT_ONCE:
            return None
        self._found[spec] = now
        return last.path if comes_before(last.path, path) else path


def _together(last: _Open, this: _Open) -> bool:
    recent = this.time - last.time < RECENT_SECONDS
    same = last.program == this.program and this.program > 0
    return recent and last.path != this.path and (same or is_there(last.program))
