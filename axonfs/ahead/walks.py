"""Which of the programs that open `config.json` and its like load a model, and which walk.

Pure but for one look into /proc: opens and times in, versions out. Below prefetcher.py.

A program that opens more than `MOST_AT_ONCE` versions, each within `QUIET_SECONDS` of the one
before, walks; it is left out until it is quiet, so that one that never ends holds up no other. The
rest are judged together, since a walk may be made of many programs (`find -exec cat`): few versions
are a load. Of many, those are that programs opened which are still there: `cat` is not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from axonfs.catalog.tree import Version
from axonfs.names import Spec

# A walk comes to the next version's config.json sooner than this; a load can spare a second.
QUIET_SECONDS = 1.0
# More versions than this at once are a walk: a target with its draft model is a load.
MOST_AT_ONCE = 2
# What was opened is judged after this many seconds even if others go on opening.
JUDGED_AFTER = 3.0


@dataclass(slots=True)
class Opened:
    """A version, and its files that were opened."""

    version: Version
    paths: list[str]


@dataclass(slots=True)
class _Program:
    """What one program opened, and when it opened its first and its last version."""

    first: float
    last: float = 0.0
    opened: dict[Spec, Opened] = field(default_factory=dict)

    @property
    def walks(self) -> bool:
        return len(self.opened) > MOST_AT_ONCE


class Opens:
    """What was opened and is not judged yet, by program."""

    def __init__(self) -> None:
        self._programs: dict[int, _Program] = {}
        self._walk = False  # many programs together are a walk that has not ended

    def __bool__(self) -> bool:
        return bool(self._programs)

    def add(self, version: Version, path: str, program: int, now: float) -> None:
        """Note an open. Opening a version again does not postpone its judgement.

        Args:
            program: the id of its thread, 0 where it is not known.
        """
        one = self._programs.setdefault(program, _Program(now))
        if known := one.opened.get(version.spec):
            if path not in known.paths:
                known.paths.append(path)
            return
        one.last = now
        if not one.walks:
            one.opened[version.spec] = Opened(version, [path])

    def due(self) -> float:
        """When to judge next, if nothing else is opened until then; only while there are opens."""
        rest = [one for one in self._programs.values() if not one.walks]
        if not rest:
            return min(one.last for one in self._programs.values()) + QUIET_SECONDS
        quiet = max(one.last for one in rest) + QUIET_SECONDS
        oldest = min(rest, key=lambda one: one.first)
        return min(quiet, max(oldest.first + JUDGED_AFTER, oldest.last + QUIET_SECONDS))

    def judge(self, now: float) -> list[Opened]:
        """The loads among what was opened; all that was judged is forgotten."""
        rest = [one for one in self._programs.values() if not one.walks]
        ready = {
            number: one for number, one in self._programs.items() if one.last + QUIET_SECONDS <= now
        }
        for number in ready:
            del self._programs[number]
        loads = {number: one for number, one in ready.items() if not one.walks}
        if self._walk or len(_specs(rest)) > MOST_AT_ONCE:
            self._walk = bool(self._programs)
            loads = {number: one for number, one in loads.items() if _is_there(number)}
        if len(_specs(loads.values())) > MOST_AT_ONCE:
            return []
        return [opened for one in loads.values() for opened in one.opened.values()]


def _specs(programs: Iterable[_Program]) -> set[Spec]:
    return {spec for one in programs for spec in one.opened}


def _is_there(program: int) -> bool:
    """Whether the thread still runs; a walk that is a shell's loop has a new one for each file."""
    return program > 0 and os.path.exists(f"/proc/{program}")
