"""How results look: tables and sizes for people, JSON for programs.

Everything that came from a registry passes `printable` here, so that no description can move
the cursor or hide in a terminal. JSON needs no such care: it escapes control characters.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import click

from axonfs.cli.columns import clip, pad, width
from axonfs.errors import find
from axonfs.names import printable

T = TypeVar("T")

# What was told, so that nothing is told twice.
said: set[str] = set()
# Warnings of sources that wait to be told: the error of the command may say the same.
held: list[str] = []


def echo_json(value: Any) -> None:
    """`value` on stdout; non-ASCII is escaped, so any terminal and any locale can take it."""
    click.echo(json.dumps(value, indent=2))


def echo(text: str) -> None:
    """One line on stdout, made safe."""
    click.echo(printable(text, 4000))


def echo_path(path: str) -> None:
    """A path for scripts: its own bytes, whatever the encoding of stdout."""
    click.echo(os.fsencode(path))


def complain(text: str) -> None:
    """Lines on stderr; where nobody reads it any more, nothing."""
    with suppress(OSError):
        click.echo(text, err=True)


def is_news(text: str) -> bool:
    """Whether `text` was not told yet; from here on it counts as told."""
    known = text in said
    said.add(text)
    return not known


def note(text: str) -> None:
    """One line on stderr: what a person may want to know while stdout stays the result."""
    if is_news(text):
        complain(printable(text, 4000))


def tell(text: str) -> None:
    """One line on stderr: a warning or an error."""
    if is_news(text):
        complain(f"axonfs: {printable(text, 2000)}")


def tell_held(error: str = "") -> None:
    """Tell the warnings that wait, but for those that `error` says as well."""
    waiting = [text for text in held if text not in error]
    held.clear()
    for text in waiting:
        tell(text)


def asked(question: Callable[[], T]) -> T:
    """What a person answers on the terminal; Ctrl-C ends the line, as an answer would have."""
    try:
        return question()
    except click.Abort:
        complain("")
        raise


def interrupted(exc: BaseException) -> bool:
    """Whether Ctrl-C is what happened, alone or among what it made fail."""
    return find(exc, KeyboardInterrupt) is not None


def show_note(event: dict[str, Any]) -> None:
    """What a request tells while it is worked on, if it is a note: a sink for quick commands."""
    if event.get("event") == "note":
        note(str(event.get("text", "")))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, widest: int = 60) -> None:
    """Columns wide enough for their longest cell.

    All but the first are cut to `widest`: that one names what the row is of, to be copied.
    """
    plain = ([printable(cell, 1000) for cell in row] for row in rows)
    safe = [(first, *(clip(cell, widest) for cell in rest)) for first, *rest in plain]
    lines = [tuple(head), *safe]
    widths = [max(width(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = [pad(cell, columns) for cell, columns in zip(line, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Lines of `name: value`, values aligned; pairs without a value are left out."""
    kept = [(name, value) for name, value in pairs if value]
    columns = max((len(name) for name, _ in kept), default=0) + 2
    for name, value in kept:
        click.echo(f"{name + ':':<{columns}}{printable(value, 2000)}")


def clock(seconds: float) -> str:
    """A time of day here, from unix seconds."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
