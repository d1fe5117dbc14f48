"""The picture of a trace as a PNG image, by Pillow: light, and as wide as WIDTH pixels.

Pillow is the extra `trace`. Its own font is used, which is on every machine and has Latin letters:
others become boxes. Blocking.
"""

from __future__ import annotations

import io
import re
import textwrap
from importlib.resources import files
from types import ModuleType
from typing import Any

from axonfs.distro import install_extra
from axonfs.errors import UnsupportedError
from axonfs.trace.charts import Panel
from axonfs.trace.picture import Bar, Picture
from axonfs.trace.raster import Rect
from axonfs.trace.rows import KINDS

WIDTH, MARGIN, NAMES = 1600, 40, 340
_LEFT, _RIGHT = MARGIN + NAMES, WIDTH - MARGIN
_GAP = 6
_SMALL, _USUAL, _LARGE = 13, 16, 26
_SENTENCE = 150  # characters of a line
_TIED = "\N{NO-BREAK SPACE}"
_COLOUR = re.compile(r"--([a-z_]+): (#[0-9a-f]{3,6})")


def png(picture: Picture) -> bytes:
    """The image.

    Raises:
        UnsupportedError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as exc:
        hint = f"{install_extra('trace')}, or name a .html file"
        raise UnsupportedError("Pillow is missing, which makes PNG images", hint=hint) from exc
    measured = _Sheet(None, ImageFont)
    measured.draw(picture)
    image = Image.new("RGB", (WIDTH, measured.y + MARGIN), _colours()["back"])
    _Sheet(ImageDraw.Draw(image), ImageFont).draw(picture)
    written = io.BytesIO()
    image.save(written, "PNG", optimize=True)
    return written.getvalue()


def _colours() -> dict[str, str]:
    """The page's light colours, by their names."""
    style = files(__name__.rpartition(".")[0]).joinpath("page.css").read_text("utf-8")
    return dict(_COLOUR.findall(style.partition("@media")[0]))


class _Sheet:
    """Draws from top to bottom; `y` is where the next thing goes. Without `onto` it measures."""

    def __init__(self, onto: Any, fonts: ModuleType) -> None:
        self.y = MARGIN
        self._onto = onto
        self._fonts = {size: fonts.load_default(size) for size in (_SMALL, _USUAL, _LARGE)}
        self._colours = _colours()

    def draw(self, picture: Picture) -> None:
        """Draw all of a picture."""
        self._line(picture.title, _LARGE, wide=90)
        facts = (f"{name}: {text}".replace(" ", _TIED) for name, text in picture.facts)
        self._line(f"{_TIED} {_TIED}".join(facts), _SMALL, "soft", wide=200)
        for sentence in picture.sentences:
            self._line(sentence, _USUAL, wide=_SENTENCE)
        for remark in picture.remarks:
            self._line(remark, _SMALL, "soft")
        self.y += 2 * _GAP
        if picture.charts:
            self._legend()
            self._axis(picture)
        for panel in (*picture.charts, *picture.files):
            self._panel(panel, picture)
        for title, bars in picture.tables:
            if bars:
                self.y += 2 * _GAP
                self._line(title, _USUAL)
            for bar in bars:
                self._bar(bar)

    def _text(self, x: int, y: int, text: str, size: int, colour: str = "text") -> None:
        if self._onto is not None:
            self._onto.text((x, y), text, self._colours[colour], self._fonts[size])

    def _clipped(self, x: int, y: int, text: str, wide: int, colour: str = "text") -> None:
        """One line in small letters, cut to `wide` pixels."""
        measure = self._fonts[_SMALL].getlength
        shown = text
        while shown and measure(shown) > wide:
            shown = f"{shown.rstrip('…')[:-1]}…" if shown.rstrip("…") else ""
        self._text(x, y, shown, _SMALL, colour)

    def _line(self, text: str, size: int, colour: str = "text", *, wide: int = 190) -> None:
        """Some lines of text, over the whole width."""
        for line in textwrap.wrap(text, wide):
            self._text(MARGIN, self.y, line.replace(_TIED, " ").strip(), size, colour)
            self.y += round(1.4 * size)
        self.y += _GAP

    def _legend(self) -> None:
        x = MARGIN
        for kind, words in KINDS.items():
            self._box(x, self.y, x + _SMALL, self.y + _SMALL, kind)
            self._text(x + 20, self.y - 2, words, _SMALL)
            x += 40 + round(self._fonts[_SMALL].getlength(words))
        self.y += 3 * _GAP + _SMALL

    def _axis(self, picture: Picture) -> None:
        for at, text in picture.ticks:
            x = _LEFT + round(at * (_RIGHT - _LEFT))
            self._text(min(x, _RIGHT - 40), self.y, text, _SMALL, "soft")
        self.y += _SMALL + _GAP

    def _panel(self, panel: Panel, picture: Picture) -> None:
        """One chart beside its texts."""
        top, height = self.y, max(panel.height, _SMALL + 4)
        self._box(_LEFT, top, _RIGHT, top + panel.height, "chart")
        for layer in panel.layers:
            for rect in layer.rects:
                self._rect(rect, top, panel.height, layer.kind)
        for left, right, _ in picture.axis.pauses:
            self._rect(Rect(left, 0.0, right, 1.0), top, panel.height, "back")
        self._clipped(MARGIN, top, panel.title, NAMES - 10)
        if height >= 2 * _SMALL + 6:
            self._clipped(MARGIN, top + _SMALL + 4, panel.note, NAMES - 10, "soft")
        if panel.top:
            self._text(_LEFT + 4, top + 2, panel.top, _SMALL, "soft")
        self.y += height + _GAP

    def _rect(self, rect: Rect, top: int, height: int, kind: str) -> None:
        wide = _RIGHT - _LEFT
        left, right = _LEFT + round(rect.left * wide), _LEFT + round(rect.right * wide)
        self._box(
            left, top + round(rect.top * height), right, top + round(rect.bottom * height), kind
        )

    def _bar(self, bar: Bar) -> None:
        self._clipped(MARGIN, self.y, bar.name, 620)
        self._text(MARGIN + 640, self.y, bar.value, _SMALL, "soft")
        self.y += _SMALL + 5
        self._box(MARGIN, self.y, MARGIN + max(round(bar.part * 1000), 1), self.y + 4, bar.kind)
        self.y += 2 * _GAP

    def _box(self, left: int, top: int, right: int, bottom: int, kind: str) -> None:
        if self._onto is not None:
            corners = left, top, max(right - 1, left), max(bottom - 1, top)
            self._onto.rectangle(corners, self._colours[kind])
