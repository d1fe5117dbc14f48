"""The picture of a trace: panels of rectangles over one axis of time, and the texts around them.

Pure; above figures.py and advice.py. `page.py` and `png.py` draw the same picture.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from axonfs.trace.advice import CAUSES, advice
from axonfs.trace.charts import Panel, kind_of, line, waits
from axonfs.trace.figures import Figures, Sum, figures, said
from axonfs.trace.reading import Program, Trace
from axonfs.trace.records import ASKED
from axonfs.trace.rows import MOST_FILES, first_uses, rows
from axonfs.trace.timeline import Axis
from axonfs.units import counted, size

MOST_BARS = 30  # programs, and sources


@dataclass(frozen=True, slots=True)
class Bar:
    """A name, a text for its value, and its part of the greatest of its kind."""

    kind: str
    name: str
    value: str
    part: float


@dataclass(frozen=True, slots=True)
class Picture:
    """All that is drawn. `ticks` are texts with their places on the axis."""

    title: str
    facts: list[tuple[str, str]]
    sentences: list[str]
    axis: Axis
    ticks: list[tuple[float, str]]
    charts: list[Panel]
    files: list[Panel]
    tables: list[tuple[str, list[Bar]]]
    remarks: list[str]


def picture(trace: Trace, name: str) -> Picture:
    """The picture of a trace that is in a file of this name."""
    sums = figures(trace)
    axis = Axis(sums.periods)
    begins = axis.periods[0][0]
    return Picture(
        title=_title(trace, name),
        facts=_facts(trace, sums),
        sentences=advice(trace, sums),
        axis=axis,
        ticks=[(at, f"{seconds - begins:g} s") for seconds, at in axis.ticks(begins)],
        charts=[line(trace, sums, axis), waits(sums, axis)] if sums.periods else [],
        files=rows(trace, sums, axis),
        tables=[
            ("Waiting time by cause, all requests added up", _causes(sums)),
            ("Programs", _programs(sums)),
            ("Sources", _sources(sums)),
        ],
        remarks=_remarks(trace),
    )


def _title(trace: Trace, name: str) -> str:
    specs = list(dict.fromkeys(file.spec for file in trace.files if file.spec))
    if not specs:
        return name
    return specs[0] if len(specs) == 1 else f"{counted(len(specs), 'version')}, {specs[0]} first"


def _facts(trace: Trace, sums: Figures) -> list[tuple[str, str]]:
    facts = trace.facts
    began = trace.began + sums.periods[0][0] if sums.periods else trace.began
    read = sum(one.read for one in sums.programs.values())
    pairs = [
        ("began", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(began))),
        ("took", _took(sums)),
        ("came", f"{size(sums.came)} in {counted(sums.requests, 'request')}" if sums.came else ""),
        ("copied on this machine", size(sums.copied) if sums.copied else ""),
        ("local before", size(sums.local) if sums.local else ""),
        ("read", f"{size(read)} by {counted(len(sums.programs), 'program')}" if read else ""),
        ("readers waited", said(sums.waited) if sums.waited else ""),
        ("mount", str(facts.get("mountpoint", ""))),
        ("prefetch", str(facts.get("prefetch", ""))),
        ("axonfs", str(facts.get("version", ""))),
    ]
    return [(name, text) for name, text in pairs if text]


def _took(sums: Figures) -> str:
    if not sums.periods:
        return ""
    whole = sums.periods[-1][1] - sums.periods[0][0]
    shown = f", {said(sums.seconds)} of it shown" if len(sums.periods) > 1 else ""
    return said(whole) + shown


def _remarks(trace: Trace) -> list[str]:
    """What the picture does not show."""
    found = [f"The recording ended: {why}." for _, why in trace.stops if why != ASKED]
    if (shown := len(first_uses(trace))) > MOST_FILES:
        found.append(f"Of {shown} files only {MOST_FILES} have a row, those with the most bytes.")
    if any(opened.passed_through for opened in trace.opens):
        found.append(
            "Files that are whole are passed through: the kernel reads them itself, and the mount"
            " sees no read of theirs."
        )
    if len(trace.workers) > 1:
        found.append(f"{len(trace.workers)} workers recorded, one after another.")
    if trace.lost:
        found.append(f"{counted(trace.lost, 'event')} came too fast and were not recorded.")
    if trace.malformed:
        found.append(f"{counted(trace.malformed, 'line')} of the file were malformed.")
    return found


def _causes(sums: Figures) -> list[Bar]:
    """Waiting time by cause."""
    most = max(sums.causes.values(), default=1.0)
    return [
        Bar(kind_of(cause), CAUSES.get(cause, cause), said(seconds), seconds / most)
        for cause, seconds in sums.causes.items()
        if seconds >= 0.0005
    ]


def _programs(sums: Figures) -> list[Bar]:
    """What each program read, the busiest first."""
    most = max([one.read for one in sums.programs.values()] or [0]) or 1
    found = sorted(sums.programs.items(), key=lambda item: -item[1].read)
    return [
        Bar(
            "read",
            _named(program),
            _work(one),
            one.read / most,
        )
        for program, one in found[:MOST_BARS]
    ]


def _named(program: Program) -> str:
    """A program. The kernel does not name those of other pid namespaces, nor who reads ahead."""
    if not program.pid:
        return "programs without a known pid"
    return f"{program.name or 'a program'} ({program.pid})"


def _work(one: Sum) -> str:
    """What a program did."""
    if not one.reads:
        return f"opened {counted(one.opens, 'file')}"
    waited = f", waited {said(one.waited)}" if one.waited else ""
    return f"{size(one.read)} in {counted(one.reads, 'read')}{waited}"


def _sources(sums: Figures) -> list[Bar]:
    """What came from each source or site cache."""
    most = max([came for _, came in sums.sources.values()] or [0]) or 1
    found = sorted(sums.sources.items(), key=lambda item: -item[1][1])
    return [
        Bar("received", name, f"{size(came)} in {counted(count, 'request')}", came / most)
        for name, (count, came) in found[:MOST_BARS]
    ]
