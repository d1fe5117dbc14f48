"""Reads a trace, which anybody may have written: what is malformed is counted and left out.

Blocking. All texts are made printable here, so that none can control a terminal or hide a name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axonfs.errors import AxonError, UsageError
from axonfs.names import printable
from axonfs.ranges import Range
from axonfs.trace.records import began

# A file that is longer is no trace of ours, which end at file.MOST.
MOST_BYTES = 512 << 20
_LONGEST_LINE = 1 << 20
_LONGEST_TEXT = 1000
_LARGEST = 1 << 60
_LATEST = 1e9  # seconds since the trace began


@dataclass(slots=True, eq=False)
class File:
    """A file of the mount; `local` is what of it was local when the trace first names it."""

    path: str
    size: int = 0
    local: list[Range] = field(default_factory=list)
    known: bool = False  # whether the trace says what was local
    spec: str = ""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that reads."""

    pid: int
    name: str


@dataclass(frozen=True, slots=True)
class Request:
    """A request for the bytes of a job; `priority` 0 means that a reader waits for them."""

    time: float
    priority: int
    source: str

    @property
    def local(self) -> bool:
        """Whether a copy on this machine is read, and nothing sent."""
        return self.source.startswith("/")


@dataclass(frozen=True, slots=True)
class Landing:
    """The arrival of some bytes."""

    time: float
    span: Range


@dataclass(slots=True, eq=False)
class Job:
    """Bytes of a file that are fetched together, from the moment at which they are asked for.

    `stages` says what it waited for from when on, one of axonfs.steps.Cause."""

    file: File
    span: Range
    priority: int
    asked: float
    requests: list[Request] = field(default_factory=list)
    stages: list[tuple[float, str]] = field(default_factory=list)
    landings: list[Landing] = field(default_factory=list)
    ended: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Reads:
    """Reads of one program in a row; `waited` sums the seconds of those that had to wait."""

    began: float
    ended: float
    file: File
    program: Program
    span: Range
    size: int
    count: int
    waited: float


@dataclass(frozen=True, slots=True)
class Open:
    """A file that a program opened; the reads of one that is passed through are not seen."""

    time: float
    file: File
    program: Program
    passed_through: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """A read that got an errno after some seconds."""

    time: float
    seconds: float
    file: File
    program: Program
    offset: int
    error: int


@dataclass(slots=True)
class Trace:
    """All that a trace says. Times are seconds since `began`, which is in unix seconds."""

    began: float
    workers: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    reads: list[Reads] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    opens: list[Open] = field(default_factory=list)
    waited: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    stops: list[tuple[float, str]] = field(default_factory=list)
    lost: int = 0
    malformed: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        """What the last worker said of itself."""
        return self.workers[-1][1] if self.workers else {}


def read(path: Path) -> Trace:
    """The trace in a file.

    Raises:
        UsageError: it is not one.
        AxonError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as exc:
        raise AxonError(f"the trace cannot be read: {exc.strerror}", path=str(path)) from exc
    head, _, rest = raw.partition(b"\n")
    if (start := began_of(head)) is None or len(raw) > MOST_BYTES:
        hint = "axonfs trace start, or axonfs mount --trace FILE, makes one"
        raise UsageError("is not a trace of this version of axonfs", path=str(path), hint=hint)
    return parse(start, rest)


def began_of(head: bytes) -> float | None:
    """When the trace with this first line began; None if it is none."""
    return began(head) if len(head) < _LONGEST_TEXT else None


def parse(start: float, text: bytes) -> Trace:
    """The trace with these records, without the first."""
    parser = _Parser(Trace(start))
    for line in _lines(text):
        parser.take(line)
    _complete(parser.trace)
    return parser.trace


def _complete(trace: Trace) -> None:
    """Find out what the trace does not say of files that were closed before it could look: whatever
    was read and did not arrive was local, and a version has all files in its directory."""
    landed: dict[File, set[Range]] = {file: set() for file in trace.files}
    for job in trace.jobs:
        landed[job.file].update(landing.span for landing in job.landings)
    for reads in trace.reads:
        if not reads.file.known and not landed[reads.file]:
            reads.file.local.append(reads.span)
    directories = {
        file.spec.replace("@", "/") + "/": file.spec for file in trace.files if file.spec
    }
    for file in trace.files:
        if not file.spec:
            above = (file.path[: slash + 1] for slash in _slashes(file.path))
            file.spec = next(filter(None, map(directories.get, above)), "")


def _slashes(path: str) -> Iterator[int]:
    """The places of the slashes in a path."""
    at = -1
    while (at := path.find("/", at + 1)) >= 0:
        yield at


def _lines(text: bytes) -> Iterator[bytes]:
    """The lines; not the last one if it is torn, which a writer that was killed leaves."""
    at = 0
    while (end := text.find(b"\n", at)) >= 0:
        yield text[at:end]
        at = end + 1


class _Parser:
    """Puts the records of one file together. Each worker counts files, programs, jobs anew."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._by_path: dict[str, File] = {}
        self._forget()
        self._kinds: dict[str, Callable[[list[Any]], None]] = {
            "worker": self._worker,
            "file": self._file,
            "program": self._program,
            "open": self._open,
            "read": self._read,
            "fail": self._fail,
            "ask": self._ask,
            "request": self._request,
            "stage": self._stage,
            "land": self._land,
            "end": self._end,
            "waited": self._waited,
            "stop": self._stop,
            "lost": self._lost,
        }

    def _forget(self) -> None:
        self._files: dict[int, File] = {}
        self._programs: dict[int, Program] = {}
        self._jobs: dict[int, Job] = {}

    def take(self, line: bytes) -> None:
        """One more record."""
        if not line:  # the end of a torn one
            return
        try:
            if len(line) > _LONGEST_LINE:
                raise ValueError("too long")
            kind, *items = json.loads(line)
            if (parse := self._kinds.get(kind)) is not None:
                parse(items)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            self.trace.malformed += 1

    def _worker(self, items: list[Any]) -> None:
        time, facts = items[:2]
        shown = {str(name): _plain(value) for name, value in facts.items()}
        self.trace.workers.append((_seconds(time), shown))
        self._forget()

    def _file(self, items: list[Any]) -> None:
        number, path, size, local, spec = items[:5]
        file = self._by_path.get(path)
        if file is None:
            file = self._by_path[path] = File(_text(path))
            self.trace.files.append(file)
        if size is not None and not file.known:
            file.size, file.known = _count(size), True
            file.local = [_span(*run) for run in local or ()]
            file.spec = _text(spec)
        self._files[_count(number)] = file

    def _program(self, items: list[Any]) -> None:
        number, pid, name = items[:3]
        self._programs[_count(number)] = Program(_count(pid), _text(name))

    def _open(self, items: list[Any]) -> None:
        time, _, file, program, passed = items[:5]
        known = self._files[file], self._programs[program]
        self.trace.opens.append(Open(_seconds(time), *known, passed is True))

    def _read(self, items: list[Any]) -> None:
        time, seconds, file, program, start, stop, size, count, waited = items[:9]
        start, stop = _span(start, stop)
        found = self._files[file]
        found.size = max(found.size, stop)
        began = _seconds(time)
        ended = began + _seconds(seconds)
        totals = _count(size), _count(count), _seconds(waited)
        span = Range(start, stop)
        self.trace.reads.append(Reads(began, ended, found, self._programs[program], span, *totals))

    def _fail(self, items: list[Any]) -> None:
        time, seconds, file, program, offset, error = items[:6]
        known = self._files[file], self._programs[program]
        when = _seconds(time), _seconds(seconds)
        self.trace.failures.append(Failure(*when, *known, _count(offset), _count(error)))

    def _ask(self, items: list[Any]) -> None:
        time, number, file, start, stop, priority = items[:6]
        job = Job(self._files[file], _span(start, stop), _count(priority), _seconds(time))
        self._jobs[_count(number)] = job
        self.trace.jobs.append(job)

    def _request(self, items: list[Any]) -> None:
        time, job, priority, source = items[:4]
        request = Request(_seconds(time), _count(priority), _text(source))
        self._jobs[job].requests.append(request)

    def _stage(self, items: list[Any]) -> None:
        time, job, cause = items[:3]
        self._jobs[job].stages.append((_seconds(time), _text(cause)))

    def _land(self, items: list[Any]) -> None:
        time, job, start, stop = items[:4]
        self._jobs[job].landings.append(Landing(_seconds(time), _span(start, stop)))

    def _end(self, items: list[Any]) -> None:
        time, number, error = items[:3]
        job = self._jobs.pop(number)
        job.ended = _seconds(time)
        job.error = None if error is None else _text(error)

    def _waited(self, items: list[Any]) -> None:
        time, causes = items[:2]
        found = {_text(cause): _seconds(seconds) for cause, seconds in causes.items()}
        self.trace.waited.append((_seconds(time), found))

    def _stop(self, items: list[Any]) -> None:
        self.trace.stops.append((_seconds(items[0]), _text(items[1])))

    def _lost(self, items: list[Any]) -> None:
        self.trace.lost += _count(items[1])


def _seconds(item: object) -> float:
    if not isinstance(item, int | float) or isinstance(item, bool) or not math.isfinite(item):
        raise ValueError("is not a time")
    if not -1.0 < item < _LATEST:  # a clock that was set back a little does no harm
        raise ValueError("is not a time of this trace")
    return max(float(item), 0.0)


def _count(item: object) -> int:
    if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < _LARGEST:
        raise ValueError("is not a count")
    return item


def _span(start: object, stop: object) -> Range:
    span = Range(_count(start), _count(stop))
    if span.size < 0:
        raise ValueError("ends before it begins")
    return span


def _text(item: object) -> str:
    if not isinstance(item, str):
        raise TypeError("is not a text")
    return printable(item, _LONGEST_TEXT)


def _plain(item: object) -> Any:
    """A fact of a worker: a number, or a text."""
    if isinstance(item, bool | int) or (isinstance(item, float) and math.isfinite(item)):
        return item
    return _text(str(item))
