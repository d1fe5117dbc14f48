"""What happens while a trace is recorded, as records; files, programs and jobs get numbers.

Between fetch, which tells of jobs, and recorder.py, which writes the records several times a
second. Trio thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from axonfs.errors import AxonError
from axonfs.fetch import Download, Job, Watcher
from axonfs.http_client import shown
from axonfs.ranges import Range, chunk_range
from axonfs.steps import Cause, outermost, trail
from axonfs.trace.records import Record

# Records that wait for the disk; what comes beyond is counted, and lost.
MOST_WAITING = 200_000
# Runs of local chunks that are told of one file, the longest ones.
MOST_RUNS = 1000
_LONGEST_TEXT = 500


class Events(Watcher):
    """The records that were not written yet.

    Args:
        before: seconds of the trio clock at which the trace began.
    """

    def __init__(self, before: float) -> None:
        self._before = before
        self._records: list[Record] = []
        self._lost = 0
        self._files: dict[str, int] = {}
        self._programs: dict[tuple[int, str], int] = {}
        self._jobs: dict[Job, int] = {}
        self._stages: dict[int, tuple[Cause, float]] = {}  # by job, with when it began
        self._landless: set[int] = set()  # jobs of which nothing has landed
        self._count = 0

    def take(self, now: float) -> list[Record]:
        """The records since the last call, which are forgotten."""
        taken, self._records = self._records, []
        if self._lost:
            taken.append(["lost", self.since(now), self._lost])
            self._lost = 0
        return taken

    def since(self, clock: float) -> float:
        """A time of the trio clock as seconds since the trace began."""
        return round(clock - self._before, 4)

    def put(self, record: Record) -> None:
        """Have a record written."""
        if len(self._records) < MOST_WAITING:
            self._records.append(record)
        else:
            self._lost += 1

    def lost(self, count: int) -> None:
        """Note that `count` events could not be recorded."""
        self._lost += count

    def file(self, path: str, find: Callable[[str], Download | None]) -> int:
        """The number of a file of the mount.

        Args:
            find: its object, if it is in use; the trace says then what of it is local.
        """
        number = self._files.get(path)
        if number is None:
            number = self._files[path] = len(self._files)
            found = find(path)
            facts = [found.entry.size, _local(found), _spec(found)] if found else [None] * 3
            self.put(["file", number, path, *facts])
        return number

    def program(self, pid: int, name: str) -> int:
        """The number of a program that reads."""
        number = self._programs.get((pid, name))
        if number is None:
            number = self._programs[pid, name] = len(self._programs)
            self.put(["program", number, pid, name])
        return number

    def queued(self, job: Job) -> None:
        self._number(job)

    def asked(self, job: Job) -> None:
        number = self._number(job)
        self.put(["request", self._now(), number, int(job.priority), _whom(job)])

    def landed(self, job: Job, chunks: Range) -> None:
        number = self._number(job)
        self._landless.discard(number)
        self.put(["land", self._now(), number, *_bytes(job.download, chunks)])

    def ended(self, job: Job, error: AxonError | None) -> None:
        if (number := self._jobs.get(job)) is not None:
            if error is None:
                self._unpacked(job, number)
            del self._jobs[job]
            why = str(error)[:_LONGEST_TEXT] if error else None
            self.put(["end", self._now(), number, why])
            self._stages.pop(number, None)
            self._landless.discard(number)

    def _unpacked(self, job: Job, number: int) -> None:
        """Note bytes that came with a package, and not by a request of their job."""
        download = job.download
        alone = not (download.unranged or job.hedges or job.superfluous)
        if number in self._landless and alone and not download.local.missing(*job.chunks):
            self.put(["request", self._now(), number, int(job.priority), _whom(job)])
            self.landed(job, job.chunks)

    def _number(self, job: Job) -> int:
        number = self._jobs.get(job)
        if number is None:
            number = self._jobs[job] = self._count
            self._count += 1
            self._landless.add(number)
            file = self.file(_path(job.download), lambda path: job.download)
            span = _bytes(job.download, job.chunks)
            self.put(["ask", self._now(), number, file, *span, int(job.priority)])
        return number

    def note_stages(self) -> None:
        """Note what each job under way waits for, if that has changed."""
        ahead = time.monotonic() - trio.current_time()
        for job, number in self._jobs.items():
            steps = trail(outermost(job.task)) if job.task is not None else []
            if steps and self._stages.get(number) != (stage := (steps[-1].cause, steps[-1].since)):
                self._stages[number] = stage
                self.put(["stage", self.since(stage[1] - ahead), number, str(stage[0])])

    def _now(self) -> float:
        return self.since(trio.current_time())


def _path(download: Download) -> str:
    """Where a reader finds the object in the mount, or one of the places."""
    segments = download.versions[0].spec.segments if download.versions else ()
    return "/".join((*segments, download.entry.path))


def _spec(download: Download) -> str:
    return str(download.versions[0].spec) if download.versions else ""


def _whom(job: Job) -> str:
    """Who is asked for the bytes of a job."""
    if job.download.blob:
        return str(job.download.blob.path)
    if job.cache:
        return shown(job.cache.name)
    return shown(job.version.base) if job.version else ""


def _bytes(download: Download, chunks: Range) -> tuple[int, int]:
    """The bytes of some chunks."""
    unit, size = download.object.chunk_size, download.entry.size
    return chunks.start * unit, max(chunk_range(chunks.stop - 1, unit, size).stop, 0)


def _local(download: Download) -> list[tuple[int, int]]:
    """The bytes of an object that are local."""
    stored = download.object
    runs = stored.presence.usable.extents(0, stored.count)
    if len(runs) > MOST_RUNS:
        runs = sorted(sorted(runs, key=lambda run: -run.size)[:MOST_RUNS])
    return [_bytes(download, run) for run in runs]
