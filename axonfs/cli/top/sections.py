"""The tables of `axonfs top`: who waits, loads, sources, failures and open files. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from axonfs.cli.output import clock
from axonfs.cli.progress import bar
from axonfs.cli.top.figures import Failure, Load, Moment, OpenFile, Source, Wait, reader, whole
from axonfs.cli.top.layout import Column, Row, Section
from axonfs.units import duration, share, size

WAITING, LOADS, SOURCES, FAILURES, FILES = "waiting", "loads", "sources", "failures", "files"
BAR = 10
STALLED = 5.0  # seconds without a byte after which a load says so
_TREND = 20
LONG = 10.0  # seconds of a wait that is not normal any more
_COMMIT = re.compile(r"@([0-9a-f]{8})[0-9a-f]{32}\b|@sha256-([0-9a-f]{8})[0-9a-f]{56}\b")

# Which orders each table has; the first is the usual one.
Order = Callable[[Any], Any]
ORDERS: Mapping[str, Mapping[str, Order]] = {
    WAITING: {
        "longest": lambda wait: -wait.seconds,
        "program": lambda wait: (wait.program, wait.pid),
        "model": lambda wait: (wait.spec, wait.path),
    },
    LOADS: {
        "trouble": lambda load: _urgency(load),
        "rate": lambda load: -(load.rate or 0),
        "size": lambda load: -load.size,
        "model": lambda load: load.spec,
    },
    SOURCES: {"configured": lambda source: 0, "trouble": lambda source: not source.trouble},
    FAILURES: {"newest": lambda failure: -failure.time},
    FILES: {
        "rate": lambda file: (-(file.rate or 0), -file.read, file.path),
        "bytes": lambda file: -file.read,
        "reads": lambda file: -file.reads,
        "name": lambda file: file.path,
    },
}


def spec_name(spec: str) -> str:
    """A version's name with a short commit or digest, as `hf/gpt2@607a30d7`."""
    return _COMMIT.sub(lambda match: f"@{match[1] or match[2]}", spec)


def waiting(moment: Moment) -> Section:
    """The readers that wait now, for what, and what to do."""
    blocks, before = moment.wait_trend.blocks(_TREND), waited(moment)
    longest = max((wait.seconds for wait in moment.waits), default=0.0)
    return Section(
        WAITING,
        f"WAITING {_programs(moment)}" if moment.waits else "WAITING",
        (Column("", right=True), Column(""), Column(""), Column("", flexible=True)),
        tuple(_wait_rows(moment.waits)),
        note="; ".join(filter(None, (blocks, before))),
        empty="no reader waits",
        style="alarm" if longest >= LONG else "title",
    )


def _programs(moment: Moment) -> str:
    """How many programs wait; the state does not list more than some requests."""
    listed = sum(wait.count for wait in moment.waits)
    return f"{moment.programs}{'+' * (whole(moment.state, 'waiting') > listed)}"


def _wait_rows(waits: Iterable[Wait]) -> Iterator[Row]:
    """A row for each; what to do is said once."""
    said = {""}
    for wait in waits:
        yield _wait_row(wait, hint=wait.hint not in said)
        said.add(wait.hint)


def _wait_row(wait: Wait, *, hint: bool) -> Row:
    does = wait.text or wait.cause
    more = (does, f"→ {wait.hint}") if hint else (does,)
    style = "bad" if wait.seconds >= LONG else "warn"
    path = _inside(wait.path, wait.spec) or wait.operation
    path += f" × {wait.count}" if wait.count > 1 else ""
    cells = (duration(wait.seconds), reader(wait), spec_name(wait.spec), path)
    key = f"{wait.pid} {wait.operation} {wait.path}"
    return Row(key, cells, wait.spec, style, more)


def _inside(path: str, spec: str) -> str:
    """The path of a file below its version's directory."""
    place = spec.replace("@", "/")
    return path.removeprefix(f"{place}/")


def _urgency(load: Load) -> tuple[object, ...]:
    """First what readers wait for, then what is idle, then what is done next."""
    complete = load.local >= load.size
    idle = 0.0 if load.idle < STALLED or complete else load.idle
    return not load.active, complete, not load.awaited, -idle, load.seconds_left


def loads(moment: Moment, *, ended: bool = True) -> Section:
    """What is on its way into the cache; with `ended`, prefetches that are done as well."""
    shown = [load for load in moment.loads if ended or load.active or load.state != "done"]
    active = sum(load.active for load in moment.loads)
    return Section(
        LOADS,
        f"LOADS {active}" if active else "LOADS",
        (
            Column("MODEL", flexible=True),
            Column("KIND", rank=5),
            Column("", rank=6),
            Column("DONE", right=True),
            Column("SIZE", rank=4, right=True),
            Column("RATE", rank=1, right=True),
            Column("LEFT", right=True),
            Column("BY", rank=7),
        ),
        tuple(map(_load_row, shown)),
        empty="none is under way",
    )


def _load_row(load: Load) -> Row:
    rate = "" if load.rate is None or not load.active else f"{size(load.rate)}/s"
    style = "" if load.active else "dim"
    if load.state in ("failed", "no room", "incomplete"):
        style = "bad"
    elif load.state == "running" and load.idle >= STALLED and load.local < load.size:
        style = "warn"
    known = load.size > 0
    cells = (
        spec_name(load.spec),
        load.kind,
        bar(min(load.local, load.size), load.size, BAR) if known else f"[{'?' * BAR}]",
        share(load.local, load.size) if known else "?",
        size(load.size) if known else "?",
        rate,
        _left(load),
        load.by,
    )
    return Row(f"{load.kind} {load.spec}", cells, load.spec, style)


def _left(load: Load) -> str:
    """Time left, or why it is not known."""
    if load.state != "running":
        return load.state
    if load.size and load.local >= load.size:
        return "done"
    if load.idle >= STALLED:
        return f"idle {duration(load.idle)}"
    return duration(load.seconds_left) if load.seconds_left < math.inf else "?"


def sources(moment: Moment) -> Section:
    """Registries and hubs, each with its site caches below it."""
    return Section(
        SOURCES,
        "SOURCES",
        (
            Column("SOURCE", flexible=True),
            Column("RATE", rank=1, right=True),
            Column("BYTES", rank=3, right=True),
            Column("REQUESTS", rank=4, right=True),
            Column("ERRORS", rank=2, right=True),
            Column("STATE"),
        ),
        tuple(map(_source_row, moment.sources)),
        empty="none is configured",
    )


def _source_row(source: Source) -> Row:
    since = f" since {clock(source.since)[11:]}" if source.since else ""
    more = (source.trouble,) if source.trouble else ()
    state = ("set aside" if source.is_cache else "fails") + since if source.trouble else "ok"
    errors = " ".join(f"{code}×{count}" for code, count in source.errors.items() if count)
    cells = (
        f"  via {source.name}" if source.is_cache else source.name,
        f"{size(source.rate)}/s" if source.rate is not None else "",
        size(source.received) if source.received else "",
        str(source.requests or ""),
        errors,
        state,
    )
    key = f"{source.is_cache} {source.name}"
    return Row(key, cells, style="bad" if source.trouble else "", more=more)


def failures(moment: Moment) -> Section:
    """What failed lately, the newest first."""
    return Section(
        FAILURES,
        "RECENT FAILURES",
        (Column(""), Column("", flexible=True, sentence=True)),
        tuple(map(_failure_row, enumerate(moment.failures))),
        empty="none",
    )


def _failure_row(item: tuple[int, Failure]) -> Row:
    number, failure = item
    return Row(f"{number} {failure.time}", (clock(failure.time)[11:], failure.message))


def files(moment: Moment) -> Section:
    """The open files, by how much is read of them."""
    return Section(
        FILES,
        f"OPEN FILES {len(moment.files)}" if moment.files else "OPEN FILES",
        (
            Column("FILE", flexible=True),
            Column("READ/S", rank=2, right=True),
            Column("READ", rank=4, right=True),
            Column("READS", rank=5, right=True),
            Column("LOCAL", rank=1, right=True),
            Column("SIZE", rank=3, right=True),
            Column("READERS", rank=6, right=True),
        ),
        tuple(map(_file_row, moment.files)),
        empty="none",
    )


def _file_row(file: OpenFile) -> Row:
    passed = file.passed_through
    cells = (
        file.path,
        "by kernel" if passed else f"{size(file.rate)}/s" if file.rate is not None else "",
        size(file.read) if file.read else "",
        str(file.reads or ""),
        share(file.local, file.size),
        size(file.size),
        str(file.readers),
    )
    return Row(file.path, cells, file.spec)


def waited(moment: Moment) -> str:
    """For what readers waited since the worker began, all of them together."""
    found = sorted(moment.waited.items(), key=lambda item: -item[1])
    parts = [f"{name.replace('_', ' ')} {duration(seconds)}" for name, seconds in found]
    if not (long := parts[: sum(seconds >= 1 for _, seconds in found)]):
        return ""
    return f"since the worker began, all added up: {', '.join(long)}"


TABLES: Mapping[str, Callable[[Moment], Section]] = {
    WAITING: waiting,
    LOADS: loads,
    SOURCES: sources,
    FAILURES: failures,
    FILES: files,
}
