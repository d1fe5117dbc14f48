"""Looks at what waits, a few times a second: counts the seconds by cause, and logs long waits.

A wait is a request of the kernel that is not answered yet. The counts are samples: a wait that is
over before it is looked at does not count.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import trio

from axonfs.fetch import Feed
from axonfs.fuse.operations import Operations, UnderWay
from axonfs.fuse.programs import Program
from axonfs.ranges import Range
from axonfs.steps import Cause, Step, outermost, trail
from axonfs.vfs.places import File, Folder, Place
from axonfs.waits.causes import Meaning, meaning

log = logging.getLogger(__name__)

# Seconds between two looks.
INTERVAL = 0.5
# Seconds after which a request counts as a wait, and one is remembered when it is over.
BRIEF, REMEMBERED = 0.1, 1.0
# Seconds after which a wait is logged: within five of its begin.
LATE = 4.0
# Waits that `status` shows, those that are over, and lines of the log in one look.
SHOWN, KEPT, LINES = 100, 10, 25


@dataclass(slots=True)
class Wait:
    """A request that waits; times by `time.monotonic`."""

    request: UnderWay
    pid: int
    program: str
    spec: str | None
    chunk: int | None
    meaning: Meaning
    fault: str | None  # of the cache's disk
    logged: bool = False

    @property
    def sentence(self) -> str:
        """What it waits for."""
        seconds = time.monotonic() - self.meaning.since
        parts = [self.meaning.text]
        if seconds >= 1:
            parts[0] += f" ({seconds:.0f} s)"
        if self.meaning.purpose:
            parts.append(self.meaning.purpose)
        if self.fault:
            parts.append(f"past the cache's disk, which fails: {self.fault}")
        return ", ".join(parts)

    @property
    def reader(self) -> str:
        """The program, for messages."""
        if not self.pid:
            return "a program without a known pid"
        return f"{self.program or 'a program'} (pid {self.pid})"

    def report(self, now: float | None = None) -> dict[str, Any]:
        """For `status`. Names in it may hold any character."""
        seconds = (now or time.monotonic()) - self.request.since
        return {
            "since": time.time() - (time.monotonic() - self.request.since),
            "seconds": round(seconds, 3),
            "operation": self.request.operation,
            "pid": self.pid,
            "program": self.program,
            "path": self.request.path,
            "spec": self.spec,
            "offset": self.request.offset,
            "size": self.request.size,
            "chunk": self.chunk,
            "source": self.meaning.source,
            "cache": self.meaning.cache,
            "cause": self.meaning.cause.value,
            "text": self.sentence,
            "hint": self.meaning.hint,
        }


class Line:
    """A line of the log about a wait; `facts` are for its form in JSON."""

    def __init__(self, wait: Wait, text: str) -> None:
        self._text = text
        self._wait = wait

    def __str__(self) -> str:
        return self._text

    def facts(self) -> dict[str, Any]:
        """The parts of the line by name."""
        report = self._wait.report()
        names = ("spec", "path", "source", "cache", "cause", "hint", "pid", "program", "seconds")
        return {name: report[name] for name in names}


class Waits:
    """The waits of one mount.

    Args:
        place: the place of an inode, if it is known.
        feed: the feed of a file, if it is in use.
        fetching: what fetches a chunk that native threads wait for, if no job brings it.
        fault: what is wrong with the cache's disk.
    """

    def __init__(
        self,
        operations: Operations,
        place: Callable[[int], Place | None],
        feed: Callable[[File], Feed | None],
        fetching: Callable[[Feed, Range], Step | None],
        fault: Callable[[], str | None],
    ) -> None:
        self._operations = operations
        self._place = place
        self._feed = feed
        self._fetching = fetching
        self._fault = fault
        self._waits: dict[object, Wait] = {}
        self._over = deque[dict[str, Any]](maxlen=KEPT)
        self._waited = dict.fromkeys(Cause, 0.0)
        self._looked = time.monotonic()
        self._complained = False

    async def run(self) -> None:
        """Look again and again, until cancelled. A bug is logged once: it must end no mount."""
        while True:
            await trio.sleep(INTERVAL)
            try:
                self.look()
            except Exception:
                if not self._complained:
                    log.exception("a bug in what explains waits; please report it")
                self._complained = True

    def look(self) -> None:
        """See what waits now."""
        now = time.monotonic()
        before, self._waits = self._waits, {}
        for request in self._operations.under_way():
            if now - request.since >= BRIEF:
                key = request.request or request
                self._waits[key] = self._wait(request, before.get(key))
        for wait in self._waits.values():
            since = max(self._looked, wait.request.since)
            self._waited[wait.meaning.cause] += max(now - since, 0.0)
        self._looked = now
        self._end([wait for key, wait in before.items() if key not in self._waits], now)
        self._log_late(now)

    def _wait(self, request: UnderWay, before: Wait | None) -> Wait:
        place = self._place(request.inode)
        version = place.version if isinstance(place, File | Folder) else None
        step, chunk = self._step(request, place)
        found = meaning(trail(step), request.since)
        return Wait(
            request,
            *((before.pid, before.program) if before else self._program(request)),
            str(version.spec) if version else None,
            chunk,
            found,
            self._fault() if chunk is not None else None,
            before is not None and before.logged,
        )

    def _program(self, request: UnderWay) -> Program:
        return self._operations.programs.of(request.thread)

    def _step(self, request: UnderWay, place: Place | None) -> tuple[Step | None, int | None]:
        """The outermost step of what is done for a request, and the chunk that a read waits for."""
        own = outermost(request.task) if request.task else None
        if request.operation != "read" or not isinstance(place, File):
            return own, None
        if request.waits_for == "disk":
            step = Step(Cause.DISK, "reading from the cache's disk")
            step.now = *step.now[:2], request.since
            return step, None
        feed = self._feed(place)
        if feed is None:
            return own, None
        awaited = feed.awaited(request.offset, request.offset + request.size)
        chunk = awaited.start if awaited.size else None
        if own is None:
            own = feed.step_towards([awaited]) or self._fetching(feed, awaited)
        return own, chunk

    def _end(self, ended: Iterable[Wait], now: float) -> None:
        """Remember waits that are over, and log the end of those whose begin was logged."""
        for wait in ended:
            seconds = now - wait.request.since
            if seconds >= REMEMBERED:
                self._over.append({**wait.report(now), "ended": time.time()})
        still = {wait.request.path for wait in self._waits.values() if wait.logged}
        over = {wait.request.path: wait for wait in ended if wait.logged}
        for path, wait in list(over.items())[:LINES]:
            if path not in still:
                seconds = now - wait.request.since
                text = f"{wait.reader} has waited {seconds:.1f} s for {path}, and that is over"
                log.info("%s", Line(wait, text))

    def _log_late(self, now: float) -> None:
        """Log waits that have become long: one line for each file."""
        late: dict[str, list[Wait]] = {}
        logged = {wait.request.path for wait in self._waits.values() if wait.logged}
        for wait in self._waits.values():
            if not wait.logged and now - wait.request.since >= LATE:
                wait.logged = True
                late.setdefault(wait.request.path, []).append(wait)
        fresh = [waits for path, waits in late.items() if path not in logged]
        for first, *others in fresh[:LINES]:
            more = f" ({len(others)} more wait for the same file)" if others else ""
            text = f"{described(first, now)}{more}: {first.sentence}; {first.meaning.hint}"
            log.info("%s", Line(first, text))
        if len(fresh) > LINES:
            log.info(
                "programs wait for %d more files; axonfs explain names them", len(fresh) - LINES
            )

    @property
    def waited(self) -> dict[str, float]:
        """The seconds that were waited since this worker began, by cause."""
        return {cause.value: round(seconds, 3) for cause, seconds in self._waited.items()}

    def report(self) -> dict[str, Any]:
        """For `status`: what waits now, the longest first, how many there are, what has waited
        last, and the seconds that were waited since this worker began, by cause."""
        self.look()
        now = time.monotonic()
        waits = sorted(self._waits.values(), key=lambda wait: wait.request.since)
        return {
            "waits": [wait.report(now) for wait in waits[:SHOWN]],
            "waiting": len(waits),
            "waits_over": list(self._over),
            "waited": self.waited,
        }


def nameless(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a mount, with a `Waits.report` in it, without the programs that wait."""
    bare = {"pid": 0, "program": ""}
    hidden = {name: [wait | bare for wait in state[name]] for name in ("waits", "waits_over")}
    return state | hidden


def described(wait: Wait, now: float) -> str:
    """Who waits, for which file, since when."""
    request = wait.request
    what = f"{wait.reader} has waited {now - request.since:.1f} s in {request.operation}"
    where = f" at byte {request.offset}" if request.operation == "read" else ""
    chunk = f" (chunk {wait.chunk})" if wait.chunk is not None else ""
    return f"{what} of {request.path}{where}{chunk}"
