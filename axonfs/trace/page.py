"""The picture of a trace as one HTML document, which needs nothing else.

Its parts are package data: page.html, page.css and page.js. All names and texts are foreign to it:
they are escaped, and the policy in the document allows no script or style but its own, and no
request. Pure.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from importlib.resources import files
from string import Template

from axonfs._version import __version__
from axonfs.page.policy import policy
from axonfs.trace.advice import CAUSES
from axonfs.trace.charts import Panel
from axonfs.trace.picture import Bar, Picture
from axonfs.trace.raster import Rect
from axonfs.trace.rows import KINDS
from axonfs.units import counted

# The coordinates of the drawings: whole numbers up to these, so that paths are short.
WIDTH, HEIGHT = 10_000, 1000
# Rows that are lower, in pixels, have their texts in one line.
LOW = 30
_OPTION = re.compile(r"--[a-z]+( auto)?")
# Kinds of the line's chart.
_LINE = ("received", "copied", "limit")
# From this many files on a picture has a field that filters them.
MANY = 12


def page(picture: Picture) -> str:
    """The document."""
    parts = files(__name__.rpartition(".")[0])
    style, script, template = (
        parts.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js", "html")
    )
    style += _classes(picture)
    script = f'"use strict";\n(() => {{\n{script}}})();\n'
    title = _text(picture.title)
    axis = json.dumps([[round(number, 5) for number in piece] for piece in picture.axis.pieces])
    return Template(template).substitute(
        policy=policy(style, script),
        version=_text(__version__),
        title=title,
        style=style,
        script=script,
        facts=_joined(
            f"<div><dt>{_text(n)}</dt><dd>{_text(v)}</dd></div>" for n, v in picture.facts
        ),
        sentences=_joined(f"<li>{_sentence(one)}</li>" for one in picture.sentences),
        remarks=_joined(f'<p class="remark">{_text(text)}</p>' for text in picture.remarks),
        legend=_joined(
            f'<span><i class="{kind}"></i>{_text(words)}</span>' for kind, words in KINDS.items()
        ),
        empty="" if picture.charts else " hidden",
        axis=_text(axis),
        ticks=_ticks(picture),
        charts=_joined(_row(panel, picture) for panel in picture.charts),
        count=_text(counted(len(picture.files), "file")),
        filtered="" if len(picture.files) >= MANY else " hidden",
        files=_joined(_row(panel, picture, file=True) for panel in picture.files),
        tables=_joined(_bars(title, bars) for title, bars in picture.tables),
    )


def _classes(picture: Picture) -> str:
    """The colour of each kind, and the places on the axis: the policy allows no style elsewhere."""
    kinds = "".join(f".{kind}{{--kind:var(--{kind})}}" for kind in (*KINDS, *CAUSES, *_LINE))
    places = enumerate(at for at, _ in _marks(picture))
    return kinds + "".join(f".t{number}{{left:{100 * at:.2f}%}}" for number, at in places)


def _marks(picture: Picture) -> list[tuple[float, str]]:
    """The texts of the axis: times, and pauses."""
    pauses = [((left + right) / 2, "⋯") for left, right, _ in picture.axis.pauses]
    return [*picture.ticks, *pauses]


def _ticks(picture: Picture) -> str:
    return _joined(
        f'<span class="t{number}{_edge(at)}">{_text(text)}</span>'
        for number, (at, text) in enumerate(_marks(picture))
    )


def _edge(at: float) -> str:
    return " first" if at < 0.02 else " last" if at > 0.97 else ""


def _row(panel: Panel, picture: Picture, *, file: bool = False) -> str:
    """One chart beside its texts."""
    kind = "file" if file else "chart"
    low = " low" if panel.height < LOW else ""
    highest = f'<span class="highest">{_text(panel.top)}</span>' if panel.top else ""
    size = f' data-size="{panel.size}"' if file else ""
    return (
        f'<div class="row {kind}{low}"><div class="name"><b title="{_text(panel.title)}">'
        f'<bdi>{_text(panel.title)}</bdi></b><span class="note">{_text(panel.note)}</span></div>'
        f'<div class="plot"{size}>{_drawing(panel, picture)}{highest}</div></div>'
    )


def _drawing(panel: Panel, picture: Picture) -> str:
    paths = _joined(_path(layer.kind, layer.rects) for layer in panel.layers if layer.rects)
    pauses = [Rect(left, 0.0, right, 1.0) for left, right, _ in picture.axis.pauses]
    return (
        f'<svg height="{panel.height}" viewBox="0 0 {WIDTH} {HEIGHT}" data-width="{WIDTH}"'
        f' preserveAspectRatio="none" role="img" aria-label="{_text(panel.title)}">{paths}'
        f"{_path('pause', pauses) if pauses else ''}</svg>"
    )


def _path(kind: str, rects: Iterable[Rect]) -> str:
    found = []
    for left, top, right, bottom in rects:
        x, y = round(left * WIDTH), round(top * HEIGHT)
        wide = max(round(right * WIDTH) - x, 1)
        found.append(f"M{x} {y}h{wide}V{round(bottom * HEIGHT)}h-{wide}z")
    return f'<path class="{kind}" d="{"".join(found)}"/>'


def _bars(title: str, bars: Iterable[Bar]) -> str:
    rows = _joined(
        f"<dt>{_text(bar.name)}</dt><dd>{_text(bar.value)}</dd>"
        f'<dd class="bar"><svg height="5" width="100%" viewBox="0 0 {WIDTH} 1"'
        f' preserveAspectRatio="none">{_path(bar.kind, [Rect(0, 0, bar.part, 1)])}</svg></dd>'
        for bar in bars
    )
    return f'<section><h2>{_text(title)}</h2><dl class="bars">{rows}</dl></section>' if rows else ""


def _sentence(text: str) -> str:
    """A sentence whose options stay on one line."""
    return _OPTION.sub(r"<code>\g<0></code>", _text(text))


def _joined(parts: Iterable[str]) -> str:
    return "".join(parts)


def _text(text: str) -> str:
    return html.escape(text, quote=True)
