"""The charts of a picture: the line's use, and the waiting readers, column by column.

Pure; between figures.py and picture.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from axonfs.trace.advice import CAUSES
from axonfs.trace.causes import BRIEF
from axonfs.trace.figures import Figures, flows
from axonfs.trace.raster import Raster, Rect
from axonfs.trace.reading import Trace
from axonfs.trace.timeline import Axis
from axonfs.units import size

# Columns of a chart, of COLUMN_SECONDS or more each: what lands at a time says little of less.
FEWEST, MOST, COLUMN_SECONDS = 40, 400, 0.1
_LINE_HEIGHT, _WAITS_HEIGHT = 120, 80
_HEADROOM = 1.05


@dataclass(frozen=True, slots=True)
class Layer:
    """Rectangles of one colour, which `kind` names."""

    kind: str
    rects: list[Rect]


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart over the axis of time: `height` in pixels, `top` is what its highest point is.

    Of a file, whose bytes go from top to bottom, `size` is how many these are.
    """

    title: str
    note: str
    height: int
    layers: list[Layer]
    top: str = ""
    size: int = 0


class Columns:
    """Amounts over the axis of time."""

    def __init__(self, axis: Axis) -> None:
        self._axis = axis
        self._count = round(min(max(axis.seconds_of(1.0) / COLUMN_SECONDS, FEWEST), MOST))
        self._amounts = [0.0] * self._count

    def add(self, start: float, stop: float, amount: float) -> None:
        """Spread an amount evenly over some seconds."""
        count = self._count
        left, right = self._axis.at(start) * count, self._axis.at(stop) * count
        first, last = min(int(left), count - 1), min(int(right), count - 1)
        for column in range(first, last + 1):
            inside = max(min(right, column + 1) - max(left, column), 0.0)
            part = inside / (right - left) if right > left else 1.0
            self._amounts[column] += amount * part

    def heights(self) -> list[float]:
        """The amount for each second of a column's own time."""
        seconds = self._axis.seconds_of(1 / self._count)
        return [amount / seconds for amount in self._amounts]


def line(trace: Trace, sums: Figures, axis: Axis) -> Panel:
    """Bytes per second over time, and the limit on them."""
    found = {"received": Columns(axis), "copied": Columns(axis)}
    for flow in flows(trace):
        found["copied" if flow.local else "received"].add(flow.start, flow.stop, flow.size)
    kinds = {kind: columns.heights() for kind, columns in found.items()}
    limit = trace.facts.get("bandwidth")
    limit = limit if isinstance(limit, int) else 0
    highest = max(*map(sum, zip(*kinds.values(), strict=True)), limit, 1.0)
    layers = _stacked(kinds, highest * _HEADROOM)
    note = f"full for {100 * sums.full:.0f} % of the time in which bytes were under way"
    if limit:
        at = 1 - limit / (highest * _HEADROOM)
        layers.append(Layer("limit", [Rect(0.0, at, 1.0, at + 0.01)]))
        note += f"; limited to {size(limit)}/s"
    return Panel("The line", note, _LINE_HEIGHT, layers, f"{size(highest)}/s")


def waits(sums: Figures, axis: Axis) -> Panel:
    """How many reads waited over time, by cause; one reader may have several under way."""
    found = {BRIEF: Columns(axis)}
    for piece in sums.waits:
        columns = found.setdefault(kind_of(piece.cause), Columns(axis))
        columns.add(piece.start, piece.stop, piece.seconds)
    kinds = {cause: found[cause].heights() for cause in CAUSES if cause in found}
    highest = max(*map(sum, zip(*kinds.values(), strict=True)), 1.0)
    layers = _stacked(kinds, highest * _HEADROOM)
    note = "how many at a time; one reader may have several"
    return Panel("Waiting reads", note, _WAITS_HEIGHT, layers, f"{highest:.0f}")


def kind_of(cause: str) -> str:
    """The colour of a cause."""
    return cause if cause in CAUSES else "other"


def _stacked(kinds: Mapping[str, list[float]], top: float) -> list[Layer]:
    """Columns of several kinds, one on top of another."""
    layers, base = [], [0.0] * MOST
    for kind, values in kinds.items():
        raster = Raster(200)
        for column, value in enumerate(values):
            if value > 0:
                low, base[column] = base[column], base[column] + value
                left, right = column / len(values), (column + 1) / len(values)
                raster.add(left, right, 1 - base[column] / top, 1 - low / top)
        layers.append(Layer(kind, raster.rects()))
    return layers
