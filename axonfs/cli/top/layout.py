"""Tables in the columns and lines of a terminal: what is least important gives way first. Pure.

Every text passes `printable` here, so that no name of a model, file or program can control the
terminal.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from axonfs.cli.columns import clip, clip_start, pad, width
from axonfs.names import printable

GAP = 2
# With fewer columns than this a shortened name is useless, so that other columns are left out.
_SHORT_NAME = 24
_LONGEST = 4000
_INDENT = " " * 4
# Names are padded to a multiple of it, so that tables rarely move.
_STEP = 10


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the screen. `key` is that of its row, and `spec` the model that it is about."""

    text: str
    style: str = ""
    key: str = ""
    spec: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    `rank` says which are left out first in a narrow terminal: the highest; 0 is never left out. The
    one that is `flexible` is shortened to what room there is: a path at its start, a `sentence` at
    its end.
    """

    title: str
    rank: int = 0
    right: bool = False
    flexible: bool = False
    sentence: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table; `more` are lines below its cells."""

    key: str
    cells: tuple[str, ...]
    spec: str = ""
    style: str = ""
    more: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A titled table; `note` is what the title says besides, `empty` what stands for no rows."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""
    empty: str = ""
    style: str = "title"


def laid_out(section: Section, columns: int | None) -> list[Line]:
    """All lines of a section; `columns` None shortens nothing."""
    rows = [tuple(printable(cell, _LONGEST) for cell in row.cells) for row in section.rows]
    widths, kept = _widths(section.columns, rows, columns)
    lines = [_title(section, widths, kept, columns)]
    for row, cells in zip(section.rows, rows, strict=True):
        text, key = _joined(section.columns, cells, widths, kept), f"{section.name}:{row.key}"
        lines.append(Line(_cut(text, columns), row.style, key, row.spec))
        lines += [
            Line(below, row.style or "dim", key, row.spec) for below in _wrapped(row.more, columns)
        ]
    return lines


def shortened(found: Sequence[Line], lines: int, more: str) -> list[Line]:
    """The first `lines` lines of a section; the last says how many rows are left out.

    Args:
        found: the section, laid out.
        more: where all rows are.
    """
    if len(found) <= lines or lines <= 2:
        return list(found[:lines])
    keys = list(dict.fromkeys(line.key for line in found if line.key))
    fitting = [key for key in keys if _end(found, key) < lines]
    fitting = fitting or keys[:1]  # a part of the first row, then
    left = len(keys) - len(fitting)
    end = min(_end(found, fitting[-1]), lines - bool(left))
    return [*found[:end], *([Line(f"  … {left} more{more}", "dim")] if left else [])]


def _end(lines: Sequence[Line], key: str) -> int:
    """The number of the first line after a row."""
    return max(number for number, line in enumerate(lines) if line.key == key) + 1


def shares(wanted: Sequence[int], weights: Sequence[int], room: int) -> list[int]:
    """How many lines each section gets of `room`, by its weight, and none more than it wants.

    Each has its title and one line of a row, or nothing: the last ones give way.
    """
    for count in range(len(wanted), 0, -1):
        given = _divided(wanted[:count], weights, room)
        if min(given) >= 2 or given == list(wanted[:count]):
            return given + [0] * (len(wanted) - count)
    return [min(wanted[0], room), *[0] * (len(wanted) - 1)]


def _divided(wanted: Sequence[int], weights: Sequence[int], room: int) -> list[int]:
    given = [0] * len(wanted)
    while room > 0 and given != list(wanted):
        for index, want in enumerate(wanted):
            more = min(weights[index], want - given[index], room)
            given[index] += more
            room -= more
    return given


def _title(
    section: Section, widths: Sequence[int], kept: Sequence[int], columns: int | None
) -> Line:
    """The titles of the columns, the first of which is the section's own; or what is empty."""
    name = section.title + (f": {section.note}" if section.note else "")
    if not section.rows:
        what = f"{section.title}: {section.empty}" + (f"; {section.note}" if section.note else "")
        return Line(_cut(printable(what, _LONGEST), columns), section.style)
    heads = ["" if c.flexible else c.title for c in section.columns]
    plain = _joined(section.columns, heads, widths, kept)
    blank = len(plain) - len(plain.lstrip()) if kept and section.columns[kept[0]].flexible else 0
    name = printable(name, _LONGEST)
    if width(name) < blank:
        return Line(_cut(name + plain[width(name) :], columns), section.style)
    return Line(_cut(name, columns), section.style)


def _widths(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], room: int | None
) -> tuple[list[int], list[int]]:
    """The width of each column, and the numbers of those that are kept."""
    widths = [
        max([width(column.title), *(width(row[number]) for row in rows)])
        for number, column in enumerate(columns)
    ]
    kept = [number for number in range(len(columns)) if any(row[number] for row in rows)]
    if room is None:
        return widths, kept
    name = next(number for number, column in enumerate(columns) if column.flexible)
    short = min(widths[name], _SHORT_NAME)
    while _total([short if n == name else widths[n] for n in kept]) > room - 1:
        last = max(kept, key=lambda number: columns[number].rank)
        if not columns[last].rank:
            break
        kept.remove(last)
    others = _total([widths[n] for n in kept if n != name]) + GAP
    widths[name] = max(min(widths[name], room - 1 - others), 1)
    if columns[name].title:
        padded = -(-widths[name] // _STEP) * _STEP
        widths[name] = max(min(padded, room - 1 - others), 1)
    return widths, kept


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * max(len(widths) - 1, 0)


def _joined(
    columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int], kept: Sequence[int]
) -> str:
    return (" " * GAP).join(_cell(columns[n], cells[n], widths[n]) for n in kept).rstrip()


def _cell(column: Column, text: str, columns: int) -> str:
    if column.flexible:
        return pad((clip if column.sentence else clip_start)(text, columns), columns)
    return " " * max(columns - width(text), 0) + text if column.right else pad(text, columns)


def _cut(text: str, columns: int | None) -> str:
    return text if columns is None else clip(text, columns - 1)


def _wrapped(texts: Sequence[str], columns: int | None) -> list[str]:
    """Sentences below a row, in as many lines as they take."""
    lines = []
    for text in texts:
        safe = printable(text, _LONGEST)
        room = len(safe) + 1 if columns is None else max(columns - len(_INDENT) - 1, 20)
        lines += [_cut(_INDENT + line, columns) for line in textwrap.wrap(safe, room)]
    return lines
