"""What the readers of a trace waited for: each wait in pieces, by what was done for it meanwhile.

Pure; between reading.py and figures.py. A read that waits is explained by the job that brought the
last of its bytes. What no job brings (a package, a manifest) was looked at while it lasted. What
neither explains is BRIEF.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from axonfs.trace.reading import File, Job, Landing, Reads, Trace

# A mount looks at its waits so often, in seconds.
LOOK = 0.5
# A read that begins so shortly after a landing may have waited for it.
SOON = 0.1
BRIEF = "brief"
# The causes that a job goes through; the waits for others are those that were looked at.
OF_JOBS = frozenset(
    {
        "queued",
        "connecting",
        "first_byte",
        "receiving",
        "retrying",
        "paused",
        "bandwidth",
        "disk",
    }
)


class Piece(NamedTuple):
    """A time in which readers waited for one cause. `seconds` adds up the requests that waited:
    a reader has several under way, since the kernel reads ahead."""

    start: float
    stop: float
    cause: str
    seconds: float


def pieces(trace: Trace) -> Iterator[Piece]:
    """The waits of a trace, in no order."""
    jobs = _Jobs(trace)
    looked = [
        Piece(max(time - min(LOOK, seconds), 0.0), time, cause, seconds)
        for time, causes in trace.waited
        for cause, seconds in causes.items()
        if cause not in OF_JOBS
    ]
    yield from looked
    unexplained = []
    for reads in trace.reads:
        if reads.waited:
            job = jobs.waited_for(reads)
            if job is None:
                unexplained.append(reads)
            else:
                yield from _explained(reads, *jobs.marks(job))
    left = sum(piece.seconds for piece in looked)
    for reads in unexplained:
        if (rest := reads.waited - left) > 0:
            yield Piece(max(reads.began, reads.ended - rest), reads.ended, BRIEF, rest)
        left = max(left - reads.waited, 0.0)


def _explained(reads: Reads, times: list[float], causes: list[str]) -> Iterator[Piece]:
    """The time of a read in pieces, by what its job did from which times on."""
    first, last = bisect_right(times, reads.began), bisect_left(times, reads.ended)
    cuts = [reads.began, *times[first:last], reads.ended]
    whole = max(reads.ended - reads.began, 1e-9)
    for number, (start, stop) in enumerate(pairwise(cuts), first - 1):
        yield Piece(start, stop, causes[number], reads.waited * (stop - start) / whole)


def _marks(job: Job) -> list[tuple[float, str]]:
    """What a job waited for from when on."""
    marks = [(job.asked, "queued"), *((request.time, "first_byte") for request in job.requests)]
    stages = [(time, cause) for time, cause in job.stages if cause in OF_JOBS]
    if not stages and job.landings:
        stages = [(job.landings[0].time, "receiving")]
    return sorted(marks + stages, key=lambda mark: mark[0])


class _Jobs:
    """Finds the job that brought the last bytes of a read."""

    def __init__(self, trace: Trace) -> None:
        self._landings: dict[File, list[tuple[int, Landing, Job]]] = defaultdict(list)
        for job in trace.jobs:
            for landing in job.landings:
                self._landings[job.file].append((landing.span.start, landing, job))
        self._marks: dict[Job, tuple[list[float], list[str]]] = {}
        for landings in self._landings.values():
            landings.sort(key=lambda found: found[0])
        self._widest = {
            file: max(landing.span.size for _, landing, _ in landings)
            for file, landings in self._landings.items()
        }

    def marks(self, job: Job) -> tuple[list[float], list[str]]:
        """The times from which on the job waited for something, and for what."""
        if (found := self._marks.get(job)) is None:
            marks = [(0.0, BRIEF), *_marks(job)]  # before the job, it was something else
            found = self._marks[job] = [at for at, _ in marks], [cause for _, cause in marks]
        return found

    def waited_for(self, reads: Reads) -> Job | None:
        landings = self._landings.get(reads.file, [])
        first = reads.span.start - self._widest.get(reads.file, 0)
        at = bisect_right(landings, first, key=lambda found: found[0])
        last: tuple[float, Job] | None = None
        for number in range(at, len(landings)):
            start, landing, job = landings[number]
            if start >= reads.span.stop:
                break
            covers = landing.span.stop > reads.span.start and landing.time > reads.began - SOON
            if covers and (last is None or landing.time > last[0]):
                last = landing.time, job
        return last[1] if last else None
