"""The pages of `axonfs top`: the overview, one table alone, the details of a model, the help. Pure.

A page is a list of lines. The live view shows a part of it; the plain form prints the overview.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from axonfs.cli.columns import clip, width
from axonfs.cli.output import clock
from axonfs.cli.top.figures import Item, Moment, items, number, part, text, whole
from axonfs.cli.top.layout import Column, Line, Row, Section, laid_out, shares, shortened
from axonfs.cli.top.sections import (
    FAILURES,
    FILES,
    LOADS,
    ORDERS,
    SOURCES,
    TABLES,
    WAITING,
    loads,
)
from axonfs.names import printable
from axonfs.units import counted, duration, share, size

# The tables of the overview from top to bottom, by the numbers of their keys.
ORDER = (WAITING, LOADS, SOURCES, FAILURES, FILES)
# How many lines each gets at a time where there are not enough.
_WEIGHTS = {WAITING: 3, LOADS: 3, SOURCES: 2, FAILURES: 1, FILES: 1}
LATELY = 600.0  # seconds for which a worker's end and a failure count as news
_TREND = 12

HELP = """\
The first lines: what arrives now and did lately, the cache, and what is wrong.

  WAITING   readers that wait now, the longest first; for what; what to do
  LOADS     versions on their way into the cache: pins, prefetches, and files
            that programs read and that are incomplete. "idle 9 s": no
            whole chunk has arrived for 9 s; what is on its way does not count
  SOURCES   registries and hubs, and the site caches that stand in for them
  FAILURES  what failed lately
  FILES     open files. The kernel reads complete ones itself ("by kernel"),
            and the mount cannot count that

  1 … 5     one table alone; 0 or Escape: all of them
  ↑ ↓       choose a line (also j, k, Page Up, Page Down, Home, End)
  Enter     the model of that line: its files, its pin, its source
  /         only lines with a text; Escape ends that
  s         sort the table by something else
  space     pause, and go on
  q         quit                  for programs: axonfs status --json --watch"""


@dataclass
class View:
    """What the user chose to see."""

    table: str | None = None
    orders: dict[str, int] = field(default_factory=dict)
    needle: str = ""
    paused: bool = False

    def order(self, table: str) -> str:
        """By what a table is sorted."""
        names = list(ORDERS[table])
        return names[self.orders.get(table, 0) % len(names)]

    def sort(self, table: str) -> None:
        """Sort a table by the next thing."""
        self.orders[table] = self.orders.get(table, 0) + 1


@dataclass(frozen=True, slots=True)
class Frame:
    """What is known beside a moment: of the mount, and why there is no newer moment."""

    mountpoint: str
    owner: str | None = None
    trouble: str = ""


def header(moment: Moment | None, frame: Frame, columns: int | None) -> list[Line]:
    """The lines above the tables."""
    lines = [Line(_fit(_title(moment, frame), columns), "title")]
    if frame.trouble:
        lines.append(Line(_fit(frame.trouble, columns), "alarm"))
    if moment is not None:
        lines += [Line(_fit(each, columns)) for each in (_fetching(moment), _cache(moment))]
        lines += [Line(_fit(each, columns), "bad") for each in problems(moment)]
    return lines


def _fit(words: str, columns: int | None) -> str:
    safe = printable(words, 4000)
    return safe if columns is None else clip(safe, columns - 1)


def _title(moment: Moment | None, frame: Frame) -> str:
    parts = [f"axonfs top {frame.mountpoint}"]
    if frame.owner:
        parts.append(f"{frame.owner}'s")
    if moment is not None:
        since = number(moment.state, "since")
        parts.append(f"up {duration(moment.time - since)}" if since else "")
        parts.append(clock(moment.time)[11:])
    return "  ".join(filter(None, parts))


def chosen(view: View, columns: int) -> Line:
    """The line between header and tables: what the user chose that hides something."""
    parts = ["PAUSED" * view.paused, f"only lines with '{view.needle}'" if view.needle else ""]
    return Line(_fit("; ".join(filter(None, parts)), columns), "warn")


def _fetching(moment: Moment) -> str:
    fetch = part(moment.state, "fetch")
    limit = whole(fetch, "bandwidth")
    parts = [
        f"fetch {size(number(fetch, 'rate'))}/s"
        + (f" of {size(limit)}/s" if limit else "")
        + f" {moment.fetch_trend.blocks(_TREND)}".rstrip(),
        f"{whole(fetch, 'in_flight')} in flight, {whole(fetch, 'queued')} queued",
        f"{size(whole(fetch, 'bytes'))} in all",
    ]
    if moment.reads is not None:
        took = f" of {_brief(moment.seconds_of_read)}" if moment.seconds_of_read else ""
        parts.insert(2, f"{moment.reads:.0f} reads/s{took}")
    return ", ".join(parts)


def _brief(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.0f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"


def _cache(moment: Moment) -> str:
    state = moment.state
    used, limit = whole(state, "cache_used"), whole(state, "cache_limit")
    of = f" of {size(limit)} ({share(used, limit)})" if limit else ""
    pins = part(state, "pins")
    parts = [f"cache {size(used)}{of}"]
    if count := whole(pins, "count"):
        lacking = pins.get("incomplete")
        lacking = len(lacking) if isinstance(lacking, list) else 0
        parts.append(counted(count, "pin") + (f", {lacking} incomplete" if lacking else ""))
    return "; ".join(parts)


def problems(moment: Moment) -> list[str]:
    """What is wrong with the mount itself; that of sources is in their table."""
    state, found = moment.state, []
    disk = part(state, "disk")
    if fault := text(disk, "fault"):
        passed = f"{size(whole(disk, 'passed'))} served without it"
        found.append(f"disk fails since {clock(number(disk, 'since'))[11:]}: {fault}; {passed}")
    if fault := text(state, "settings_fault"):
        found.append(f"the previous settings are in use: {fault}")
    if shortage := text(state, "cache_shortage"):
        found.append(f"cache: {shortage}")
    if state.get("offline"):
        found.append("offline: no request is sent")
    if bad := items(state, "quarantined"):
        found.append(f"{counted(len(bad), 'quarantined object')}, not served: see axonfs status")
    ends = items(part(state, "worker"), "ends")
    if ends and moment.time - number(ends[-1], "time") < LATELY:
        when = clock(number(ends[-1], "time"))[11:]
        found.append(f"the worker was replaced at {when}: {text(ends[-1], 'how')}")
    return found


def arranged(moment: Moment, table: str, view: View) -> Section:
    """A table of the moment, sorted and filtered as the user wants it."""
    name = view.order(table)
    if table == SOURCES and view.table is None and name == "configured":
        name = "trouble"  # there may not be room for all of them
    order = ORDERS[table][name]
    attribute = {WAITING: "waits"}.get(table, table)
    ordered: Any = {attribute: tuple(sorted(getattr(moment, attribute), key=order))}
    moment = replace(moment, **ordered)
    section = TABLES[table](moment)
    if table == LOADS and view.table is None:
        section = loads(moment, ended=False)
    needle = view.needle.casefold()
    rows = section.rows
    if needle:
        rows = tuple(row for row in rows if needle in _searched(row))
    return replace(section, rows=rows)


def _searched(row: Row) -> str:
    return "\n".join((*row.cells, *row.more, row.spec)).casefold()


def overview(moment: Moment, view: View, columns: int | None, lines: int | None) -> list[Line]:
    """All tables, each with its part of `lines`."""
    sections = [arranged(moment, table, view) for table in ORDER]
    shown = [one.name for one in sections if one.rows or one.name in (WAITING, LOADS)]
    parts = [laid_out(one, columns) for one in sections if one.name in shown]
    if lines is None or sum(map(len, parts)) + len(parts) - 1 <= lines:
        return [line for each in parts for line in (Line(""), *each)][1:]
    given = shares([len(each) for each in parts], [_WEIGHTS[name] for name in shown], lines)
    return [
        line
        for name, each, room in zip(shown, parts, given, strict=True)
        for line in shortened(each, room, f"; {ORDER.index(name) + 1} shows all")
    ]


def alone(moment: Moment, table: str, view: View, columns: int) -> list[Line]:
    """One table, whole."""
    return laid_out(arranged(moment, table, view), columns)


def details(moment: Moment, spec: str, info: Item | None, why: str, columns: int) -> list[Line]:
    """Everything about one version.

    Args:
        info: the mount's answer about it; None while it is not there.
        why: why there is no answer.
    """
    lines = [Line(_fit(spec, columns), "title")]
    if info is None:
        lines.append(Line(_fit(why or "asking the mount for its files …", columns), "dim"))
    else:
        lines += [Line(_fit(f"{name}: {value}", columns)) for name, value in _facts(info) if value]
    for table in (WAITING, LOADS):
        section = TABLES[table](moment)
        rows = tuple(row for row in section.rows if row.spec == spec)
        if rows:
            lines += [
                Line(""),
                *laid_out(replace(section, rows=rows, title=table.upper()), columns),
            ]
    lines += [Line(""), *laid_out(_files_of(moment, spec, info), columns)]
    return lines


def _facts(info: Item) -> list[tuple[str, str]]:
    local, whole_ = whole(info, "local"), whole(info, "size")
    return [
        ("local", f"{share(local, whole_)} of {size(whole_)}"),
        ("pinned", {"": "no"}.get(text(info, "pinned"), text(info, "pinned"))),
        ("source", text(info, "source")),
        ("path", text(info, "path")),
        ("manifest", text(info, "digest")[:12]),
    ]


def _files_of(moment: Moment, spec: str, info: Item | None) -> Section:
    """The files of a version, the incomplete and the open ones first; without `info` the open."""
    below = spec.replace("@", "/") + "/"
    opened = {file.path.removeprefix(below): file for file in moment.files if file.spec == spec}
    listed = {text(item, "path"): item for item in items(info or {}, "files")}
    paths = sorted(
        {**listed, **opened},
        key=lambda path: (path not in opened, _lacks(listed.get(path)) == 0, path),
    )
    rows = []
    for path in paths:
        file, item = opened.get(path), listed.get(path, {})
        local = file.local if file else whole(item, "local")
        total = file.size if file else whole(item, "size")
        rate = f"{size(file.rate)}/s" if file and file.rate else ""
        readers = str(file.readers) if file else ""
        cells = (path, share(local, total), size(total), rate, readers)
        rows.append(Row(path, cells, "", "" if file else "dim"))
    columns = (
        Column("FILE", flexible=True),
        Column("LOCAL", right=True),
        Column("SIZE", rank=1, right=True),
        Column("READ/S", rank=3, right=True),
        Column("READERS", rank=2, right=True),
    )
    return Section("files", f"FILES {len(rows)}", columns, tuple(rows), empty="none is open")


def _lacks(item: Item | None) -> int:
    return whole(item, "size") - whole(item, "local") if item else 0


def footer(view: View, table: str, columns: int, *, inside: bool) -> Line:
    """The keys, as many as there is room for; the first are the most useful.

    Args:
        table: the one that is sorted.
        inside: whether this is the help or a model's page.
    """
    words = ["esc back"] if inside or view.table or view.needle else []
    words += ["q quit", "? help", "1-5 table", "enter model", "/ filter"]
    if len(ORDERS[table]) > 1 and not inside:
        words.append(f"s sort {table}: {view.order(table)}")
    words.append("space " + ("go on" if view.paused else "pause"))
    while len(words) > 1 and width("  ".join(words)) >= columns:
        words.pop()
    return Line(clip("  ".join(words), columns - 1), "dim")


def scrolled(lines: Sequence[Line], cursor: str, offset: int, room: int) -> int:
    """From which line on to show a page, so that the row `cursor` is seen."""
    at = next((index for index, line in enumerate(lines) if cursor and line.key == cursor), None)
    if at is not None:
        offset = min(offset, max(at - 1, 0)) if at <= offset else max(offset, at - room + 2)
    return max(min(offset, len(lines) - room), 0)
