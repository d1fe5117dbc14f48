"""The width of a text in terminal columns, and texts padded or cut to a width.

Pure. An East Asian character or an emoji takes two columns, a combining character none (Unicode
annex 11, as wcwidth reads it). Texts have passed `printable`, so they have no control or
formatting characters.
"""

from __future__ import annotations

import unicodedata

_EMOJI_STYLE = "\N{VARIATION SELECTOR-16}"
# The vowels and finals of Hangul, which join the consonant before them.
_JOINING_HANGUL = range(0x1160, 0x1200)


def width(text: str) -> int:
    """The number of columns that `text` takes."""
    if text.isascii():
        return len(text)
    return sum(_widths(text))


def pad(text: str, columns: int) -> str:
    """`text` padded with blanks to `columns`."""
    return text + " " * max(columns - width(text), 0)


def clip(text: str, columns: int) -> str:
    """`text` cut to `columns`; `…` stands for the end that does not fit."""
    if width(text) <= columns:
        return text
    return text[: _fitting(_widths(text), columns - 1)] + "…" if columns > 0 else ""


def clip_start(text: str, columns: int) -> str:
    """`text` cut to `columns`; `…` stands for the start that does not fit, as for long paths."""
    if width(text) <= columns:
        return text
    if columns <= 0:
        return ""
    kept = _fitting(_widths(text)[::-1], columns - 1)
    while kept and _columns(text[-kept]) == 0:  # it combines with the character that was cut off
        kept -= 1
    return "…" + text[len(text) - kept :]


def _fitting(widths: list[int], columns: int) -> int:
    """The number of characters that fit."""
    used = 0
    for number, each in enumerate(widths):
        used += each
        if used > columns:
            return number
    return len(widths)


def _widths(text: str) -> list[int]:
    widths: list[int] = []
    for number, char in enumerate(text):
        if char == _EMOJI_STYLE and number and widths[-1] == 1:
            widths[-1] = 2 if unicodedata.category(text[number - 1]) == "So" else 1
        widths.append(_columns(char))
    return widths


def _columns(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf") or ord(char) in _JOINING_HANGUL:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
