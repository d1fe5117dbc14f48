"""What a job does now, for the readers that wait for it.

Between network and runner, which enters these steps; http_client has those of one request. Trio
thread only.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import trio

from axonfs.fetch.download import Download, Job
from axonfs.fetch.lane import Lane
from axonfs.fetch.network import Network
from axonfs.http_client import Location, shown
from axonfs.ranges import Range
from axonfs.steps import Cause, Step, Text, outermost
from axonfs.units import size

# Files that are named of those that have the streams.
NAMED = 3


def bringing(network: Network, download: Download, absent: Sequence[Range]) -> Step | None:
    """The outermost step of what brings the first chunk on its way."""
    chunks = (chunk for run in absent for chunk in range(*run))
    job = next(filter(None, map(download.flying, chunks)), None)
    if job is None:
        return None
    if not job.running and job.rival is not None and job.rival.running:
        job = job.rival  # a hedge that waits, for one that hangs
    if job.task is not None or job not in network:
        return outermost(job.task)
    return _queued(job, network.lane_of(job))


def _queued(job: Job, lane: Lane) -> Step:
    step = _step(job, Cause.QUEUED, partial(_place, job, lane), partial(failed, job))
    step.now = *step.now[:2], time.monotonic() - (trio.current_time() - job.queued)
    return step


def _place(job: Job, lane: Lane) -> str:
    """Where a job is in the queue of its lane."""
    if not job.download.may_start(job):
        return "waiting for the one answer with the whole file: the source sends no ranges"
    running, before = lane.schedule.jobs, lane.schedule.before(job)
    files = dict.fromkeys(one.download.entry.path for one in running)
    named = ", ".join(list(files)[:NAMED]) + (", …" if len(files) > NAMED else "")
    left = size(sum(one.bytes_left for one in running))
    busy = f", which bring {left} of {named}" if running else ""
    behind = f"behind {before} other requests " if before else ""
    return f"waiting {behind}for one of {len(running)} streams of {lane.name}{busy}"


def _step(job: Job, cause: Cause, text: Text, about: Text = "") -> Step:
    source = shown(job.version.base) if job.version else None
    cache = job.cache.name if job.cache else None
    return Step(cause, text, about=about, source=source, cache=cache)


def failed(job: Job) -> str:
    """Which attempt at a job this is, and why the last one failed; empty at the first."""
    if job.failure is None:
        return ""
    number = f"in attempt {job.attempts + 1} " if job.attempts else ""
    where = f" at {job.failure.source}" if job.failure is job.passed else ""
    return f"{number}after: {job.failure.what}{where}"


def attempt(job: Job) -> Step:
    """The task of a job."""
    return _step(job, Cause.OTHER, "about to ask")


def tried(job: Job) -> Step:
    """What one attempt does, without the pause that may follow."""
    return Step(Cause.OTHER, "about to ask", about=partial(failed, job))


def asking(location: Location) -> Step:
    """One request for the bytes of a job."""
    cache = location.cache.name if location.cache else None
    return Step(Cause.OTHER, "asking", source=shown(location.url), cache=cache)


def packed(job: Job) -> Step:
    """The wait for a pass over the package that a file is in."""
    assert job.version is not None
    return Step(Cause.PACKAGE, "waiting", about=f"for the package of {job.version.spec}")
