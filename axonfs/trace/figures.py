"""What a trace amounts to: sums, rates and medians.

Pure; above reading.py, below advice.py and picture.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, NamedTuple, TypeVar

from axonfs.trace.causes import LOOK, Piece, pieces
from axonfs.trace.reading import File, Job, Program, Trace
from axonfs.trace.timeline import Interval, length, periods, union
from axonfs.units import duration

T = TypeVar("T")

# Seconds over which the rate of the line is measured.
STEADY = 0.25
# Bytes that took longer to come say nothing of the line.
LONGEST = 600.0
# A line that brings this part of the fastest rate of its trace is full.
FULL = 0.8


class Flow(NamedTuple):
    """Bytes that came between two times of the trace; `local` if from this machine."""

    start: float
    stop: float
    size: int
    local: bool


@dataclass(slots=True)
class Sum:
    """What one program, or one file, amounts to; `waited` are seconds in which a read waited."""

    opens: int = 0
    reads: int = 0
    read: int = 0
    came: int = 0
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one trace; sizes in bytes, times in seconds.

    Args:
        periods: when something happened.
        waits: what readers waited for, in pieces.
        causes: the seconds of these by cause; two requests at a time count twice.
        elapsed: the seconds by cause in which at least one request waited for it.
        fastest: bytes per second, which the line brought for a tenth of its time at least.
        full: the part of the time in which bytes were asked for that the line was full.
        first: median seconds from a reader's request to the first bytes that landed of it.
        hurried: how many requests went out because a reader waited.
        late: the files that were asked for only when a program read them, after others of their
            version, and the seconds in which a reader waited for them.
    """

    periods: list[Interval]
    waits: list[Piece]
    causes: dict[str, float]
    elapsed: dict[str, float]
    came: int
    copied: int
    read: int
    local: int
    fastest: float
    full: float
    first: float
    hurried: int
    late: tuple[int, float]
    requests: int
    errors: list[str]
    programs: dict[Program, Sum]
    files: dict[File, Sum]
    sources: dict[str, tuple[int, int]]

    @property
    def seconds(self) -> float:
        return length(self.periods)

    @property
    def waited(self) -> float:
        """Seconds in which at least one reader waited."""
        return length(union((piece.start, piece.stop) for piece in self.waits))


def figures(trace: Trace) -> Figures:
    """The figures of a trace."""
    programs, files = _sums(trace)
    waits = list(pieces(trace))
    first = [
        job.landings[0].time - job.requests[-1].time
        for job in trace.jobs
        if job.landings and job.requests and job.requests[0].priority == 0
    ]
    rates = _rates(trace)
    limit = trace.facts.get("bandwidth")
    fastest = _fastest(rates)
    if isinstance(limit, int) and limit:
        fastest = min(fastest, limit)
    busy = length(union((job.asked, ended(job)) for job in trace.jobs))
    full = STEADY * sum(rate >= FULL * fastest for rate in rates)
    came = {local: sum(f.size for f in flows(trace) if f.local is local) for local in (False, True)}
    return Figures(
        periods=periods(_happened(trace)),
        waits=waits,
        causes=_causes(waits),
        elapsed=_elapsed((piece.cause, (piece.start, piece.stop)) for piece in waits),
        came=came[False],
        copied=came[True],
        read=sum(reads.size for reads in trace.reads),
        local=sum(run.size for file in trace.files for run in file.local),
        fastest=fastest,
        full=min(full / busy, 1.0) if busy and fastest else 0.0,
        first=median(first) if first else 0.0,
        hurried=sum(job.requests[0].priority == 0 for job in trace.jobs if job.requests),
        late=_late(trace),
        requests=sum(len(job.requests) for job in trace.jobs),
        errors=[job.error for job in trace.jobs if job.error],
        programs=programs,
        files=files,
        sources=_sources(trace),
    )


def plain(trace: Trace, found: Figures) -> dict[str, Any]:
    """The figures in types that JSON has."""
    return {
        "began": trace.began,
        "specs": list(dict.fromkeys(file.spec for file in trace.files if file.spec)),
        "seconds": found.seconds,
        "waited": found.waited,
        "causes": found.causes,
        "elapsed": found.elapsed,
        "came": found.came,
        "copied": found.copied,
        "read": found.read,
        "local": found.local,
        "requests": found.requests,
        "fastest": found.fastest,
        "full": found.full,
        "first": found.first,
        "errors": found.errors,
        "programs": [
            {"name": program.name, "pid": program.pid, **asdict(one)}
            for program, one in found.programs.items()
        ],
        "files": [
            {"path": file.path, "size": file.size, **asdict(one)}
            for file, one in found.files.items()
        ],
        "sources": [
            {"source": source, "requests": count, "came": came}
            for source, (count, came) in found.sources.items()
        ],
    }


def flows(trace: Trace) -> Iterator[Flow]:
    """What came, landing by landing: each in the time since the one before it of its job."""
    for job in trace.jobs:
        before = job.requests[0].time if job.requests else job.asked
        local = bool(job.requests) and job.requests[-1].local
        for landing in job.landings:
            yield Flow(min(before, landing.time), landing.time, landing.span.size, local)
            before = landing.time


def _rates(trace: Trace) -> list[float]:
    """Bytes per second of the line, in pieces of STEADY seconds in which something came."""
    found: dict[int, float] = defaultdict(float)
    for flow in flows(trace):
        if not flow.local and flow.stop - flow.start <= LONGEST:
            first, last = int(flow.start / STEADY), int(flow.stop / STEADY)
            for piece in range(first, last + 1):
                inside = min(flow.stop, (piece + 1) * STEADY) - max(flow.start, piece * STEADY)
                whole = flow.stop - flow.start
                found[piece] += flow.size * (inside / whole if whole > 0 else 1.0) / STEADY
    return list(found.values())


def _fastest(rates: list[float]) -> float:
    """The rate that the line had for a tenth of its time at least."""
    rates = sorted(rates, reverse=True)
    return rates[(len(rates) - 1) // 10] if rates else 0.0


def _sums(trace: Trace) -> tuple[dict[Program, Sum], dict[File, Sum]]:
    programs: dict[Program, Sum] = defaultdict(Sum)
    files: dict[File, Sum] = {file: Sum() for file in trace.files}
    for opened in trace.opens:
        for one in (programs[opened.program], files[opened.file]):
            one.opens += 1
    for reads in trace.reads:
        for one in (programs[reads.program], files[reads.file]):
            one.reads += reads.count
            one.read += reads.size
    waits = [one for one in trace.reads if one.waited]
    for program, seconds in _elapsed(
        (one.program, (one.began, one.ended)) for one in waits
    ).items():
        programs[program].waited = seconds
    for file, seconds in _elapsed((one.file, (one.began, one.ended)) for one in waits).items():
        files[file].waited = seconds
    for job in trace.jobs:
        files[job.file].came += _landed(job)
    return programs, files


def _late(trace: Trace) -> tuple[int, float]:
    begun: dict[str, set[File]] = defaultdict(set)
    late: set[File] = set()
    for job in sorted(trace.jobs, key=lambda job: job.asked):
        others = begun[job.file.spec]
        if others and job.file not in others and job.priority == 0:
            late.add(job.file)
        others.add(job.file)
    waits = [one for one in trace.reads if one.waited and one.file in late]
    return len(late), length(union((one.began, one.ended) for one in waits))


def _sources(trace: Trace) -> dict[str, tuple[int, int]]:
    """Requests and bytes by whom they were asked of."""
    found: dict[str, tuple[int, int]] = {}
    for job in trace.jobs:
        for at, request in enumerate(job.requests):
            last = at == len(job.requests) - 1
            came = _landed(job) if last else 0
            count, size = found.get(request.source, (0, 0))
            found[request.source] = count + 1, size + came
    return found


def _causes(waits: Iterable[Piece]) -> dict[str, float]:
    """Seconds by cause, most first."""
    found: dict[str, float] = defaultdict(float)
    for piece in waits:
        found[piece.cause] += piece.seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _elapsed(waits: Iterable[tuple[T, Interval]]) -> dict[T, float]:
    """The seconds in which something waited, by what it is; two at a time count once."""
    found: dict[T, list[Interval]] = defaultdict(list)
    for what, interval in waits:
        found[what].append(interval)
    return {what: length(union(intervals)) for what, intervals in found.items()}


def _happened(trace: Trace) -> Iterator[Interval]:
    for job in trace.jobs:
        yield job.asked, ended(job)
    for reads in trace.reads:
        yield reads.began, reads.ended
    for opened in trace.opens:
        yield opened.time, opened.time
    yield from ((max(time - LOOK, 0.0), time) for time, _ in trace.waited)


def _landed(job: Job) -> int:
    """How many bytes of a job came."""
    return sum(landing.span.size for landing in job.landings)


def ended(job: Job) -> float:
    """When a job was over; of one that a killed worker left, when the last bytes landed."""
    landed = (landing.time for landing in job.landings)
    return job.ended if job.ended is not None else max([job.asked, *landed])


def said(seconds: float) -> str:
    """A duration with two digits: `340 ms`, `4.1 s`, `83 s`, `12 min`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return duration(seconds)
