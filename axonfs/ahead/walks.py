"""Tells programs that load a model from those that walk through the versions.

Both open `config.json` and similar files. Pure, except for a look into /proc: takes opens and
times, and returns versions. Below prefetcher.py.

A program walks if it opens more than `MOST_AT_ONCE` versions, each within `QUIET_SECONDS` of the
last. It is ignored until it is quiet, so that an endless walk does not delay others. The other
programs are judged together, since a walk may consist of many programs (`find -exec cat`). If they
opened few versions, these are loads. If they opened many, only those are loads whose program still
runs, which `cat` does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from axonfs.catalog.tree import Version
from axonfs.names import Spec

# A walk opens the next version's config.json sooner than this. A load can wait that long.
QUIET_SECONDS = 1.0
# More versions than this at once are a walk; a model with its draft model is a load.
MOST_AT_ONCE = 2
# An open is judged after this many seconds, even if there are new opens.
JUDGED_AFTER = 3.0


@dataclass(slots=True)
class Opened:
    """A version, and the paths of its opened files."""

    version: Version
    paths: list[str]


@dataclass(slots=True)
class _Program:
    """The versions that one program opened, and when it opened the first and the last."""

    first: float
    last: float = 0.0
    opened: dict[Spec, Opened] = field(default_factory=dict)

    @property
    def walks(self) -> bool:
        return len(self.opened) > MOST_AT_ONCE


class Opens:
    """The opens that are not judged yet, by program."""

    def __init__(self) -> None:
        self._programs: dict[int, _Program] = {}
        self._walk = False  # a walk of many programs is going on

    def __bool__(self) -> bool:
        return bool(self._programs)

    def add(self, version: Version, path: str, program: int, now: float) -> None:
        """Note an open. Opening the same version again does not postpone its judgement.

        Args:
            program: the id of its thread, 0 if it is not known.
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
        """When to judge next if there is no new open until then. Call only if there are opens."""
        rest = [one for one in self._programs.values() if not one.walks]
        if not rest:
            return min(one.last for one in self._programs.values()) + QUIET_SECONDS
        quiet = max(one.last for one in rest) + QUIET_SECONDS
        oldest = min(rest, key=lambda one: one.first)
        return min(quiet, max(oldest.first + JUDGED_AFTER, oldest.last + QUIET_SECONDS))

    def judge(self, now: float) -> list[Opened]:
        """The loads among the opens; opens that were judged are forgotten."""
        rest = [one for one in self._programs.values() if not one.walks]
        ready = {
            number: one for number, one in self._programs.items() if one.last + QUIET_SECONDS <= now
        }
        for number in ready:
            del self._programs[number]
        loads = {number: one for number, one in ready.items() if not one.walks}
        if self._walk or len(_specs(rest)) > MOST_AT_ONCE:
            self._walk = bool(self._programs)
            loads = {number: one for number, one in loads.items() if is_there(number)}
        if len(_specs(loads.values())) > MOST_AT_ONCE:
            return []
        return [opened for one in loads.values() for opened in one.opened.values()]


def _specs(programs: Iterable[_Program]) -> set[Spec]:
    return {spec for one in programs for spec in one.opened}


def is_there(program: int) -> bool:
    """Whether the thread still runs. A walk by a shell's loop has a new one for each file."""
    return program > 0 and os.path.exists(f"/proc/{program}")
