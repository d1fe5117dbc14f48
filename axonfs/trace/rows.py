"""A row for each file of a picture: time from left to right, its bytes from top to bottom.

Pure; between figures.py and picture.py.
"""

from __future__ import annotations

import math

from axonfs.ranges import Range
from axonfs.trace.charts import Layer, Panel
from axonfs.trace.figures import Figures, Sum, ended, said
from axonfs.trace.raster import Raster
from axonfs.trace.reading import File, Job, Reads, Trace
from axonfs.trace.timeline import Axis
from axonfs.units import size

# Files that get a row, those with the most bytes.
MOST_FILES = 200
# The rows together are about so high in pixels, and each within these bounds.
HEIGHT, LOWEST, HIGHEST = 560, 18, 200

# Later ones are drawn over earlier ones.
KINDS = {
    "local": "local",
    "asked": "asked for, on its way",
    "waited": "a reader waits",
    "landed": "arrived",
    "read": "read",
    "opened": "opened",
}

# A moment is at least so wide, as a part of the axis.
NARROW = {"landed": 1 / 500, "read": 1 / 400}


def rows(trace: Trace, sums: Figures, axis: Axis) -> list[Panel]:
    """The rows of the files that were used, in the order of their first use."""
    first = first_uses(trace)
    files = sorted(sorted(first, key=lambda file: -file.size)[:MOST_FILES], key=first.__getitem__)
    weight = sum(math.sqrt(file.size) for file in files) or 1.0
    found = {file: _Row(file, axis, HEIGHT * math.sqrt(file.size) / weight) for file in files}
    for job in trace.jobs:
        if job.file in found:
            found[job.file].fetched(job)
    for reads in trace.reads:
        if reads.file in found:
            found[reads.file].was_read(reads)
    for opened in trace.opens:
        if opened.file in found:
            found[opened.file].opened(opened.time)
    several = len({file.spec for file in files if file.spec}) > 1
    return [row.panel(sums.files[file], several=several) for file, row in found.items()]


def directory(file: File) -> str:
    """The directory of the version of a file, with a slash behind it; empty if it is not known."""
    inner = file.spec.replace("@", "/") + "/"
    return inner if file.spec and file.path.startswith(inner) else ""


def first_uses(trace: Trace) -> dict[File, float]:
    """When each file that was used was used first."""
    found: dict[File, float] = {}
    uses = [(job.asked, job.file) for job in trace.jobs]
    uses += [(reads.began, reads.file) for reads in trace.reads]
    uses += [(opened.time, opened.file) for opened in trace.opens]
    for time, file in sorted(uses, key=lambda use: use[0]):
        found.setdefault(file, time)
    return found


class _Row:
    """What happened to one file."""

    def __init__(self, file: File, axis: Axis, height: float) -> None:
        self._file = file
        self._axis = axis
        self._height = round(min(max(height, LOWEST), HIGHEST))
        self._always = axis.periods[0][0], axis.periods[-1][1]
        self._rasters = {kind: Raster(self._height, NARROW.get(kind, 0.0)) for kind in KINDS}
        for run in file.local:
            self._add("local", *self._always, run)

    def _add(self, kind: str, start: float, stop: float, span: Range) -> None:
        size = max(self._file.size, 1)
        times = self._axis.at(start), self._axis.at(stop)
        self._rasters[kind].add(*times, span.start / size, span.stop / size)

    def opened(self, time: float) -> None:
        """A program opened the file."""
        self._rasters["opened"].add(self._axis.at(time), self._axis.at(time), 0.0, 1.0)

    def fetched(self, job: Job) -> None:
        """Bytes that were asked for, and those that arrived."""
        for landing in job.landings:
            self._add("asked", job.asked, landing.time, landing.span)
            self._add("landed", landing.time, landing.time, landing.span)
            self._add("local", landing.time, self._always[1], landing.span)
        if not job.landings:
            self._add("asked", job.asked, ended(job), job.span)

    def was_read(self, reads: Reads) -> None:
        """Bytes that a program got, and the time for which it waited."""
        if reads.waited:
            self._add("waited", reads.began, reads.ended, reads.span)
            self._add("read", reads.ended, reads.ended, reads.span)
        else:
            self._add("read", reads.began, reads.ended, reads.span)

    def panel(self, found: Sum, *, several: bool) -> Panel:
        """The row; `several` versions are named."""
        inner = self._file.path.removeprefix(directory(self._file))
        name, *note = [self._file.spec, inner] if several and self._file.spec else [inner]
        note.append(size(self._file.size))
        if found.came:
            note.append(f"{size(found.came)} came")
        if found.read:
            note.append(f"{size(found.read)} read")
        if found.waited:
            note.append(f"waited {said(found.waited)}")
        layers = [Layer(kind, raster.rects()) for kind, raster in self._rasters.items()]
        return Panel(name, ", ".join(note), self._height, layers, size=self._file.size)
