"""Prints results: tables for people, JSON for programs. Notes and errors go to stderr.

Text from registries passes `printable` here, so that it cannot move the cursor of a terminal.
JSON does not need that: it escapes control characters.
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

# The texts that were shown, so that none is shown twice.
shown: set[str] = set()
# Warnings about sources that are not shown yet: the command's error may say the same.
deferred: list[str] = []
# The JSON documents that were printed. A command prints one: programs read no second.
documents: list[Any] = []


def echo_json(value: Any) -> None:
    """Print `value` on stdout as JSON in ASCII, which works in any locale."""
    documents.append(value)
    click.echo(json.dumps(value, indent=2))


def echo(text: str) -> None:
    """Print one line on stdout, made printable."""
    click.echo(printable(text, 4000))


def echo_path(path: str) -> None:
    """Print a path for scripts, as its raw bytes whatever the encoding of stdout."""
    click.echo(os.fsencode(path))


def echo_err(text: str) -> None:
    """Print lines on stderr; ignore a closed stderr."""
    with suppress(OSError):
        click.echo(text, err=True)


def is_new(text: str) -> bool:
    """Whether `text` was not shown before; from now on it counts as shown."""
    known = text in shown
    shown.add(text)
    return not known


def note(text: str) -> None:
    """Print a note on stderr, so that stdout has the result alone."""
    if is_new(text):
        echo_err(printable(text, 4000))


def report(text: str) -> None:
    """Print a warning or an error on stderr."""
    if is_new(text):
        echo_err(f"axonfs: {printable(text, 2000)}")


def warn_deferred(error: str = "") -> None:
    """Print the deferred warnings, except those that `error` repeats."""
    waiting = [text for text in deferred if text not in error]
    deferred.clear()
    for text in waiting:
        report(text)


def prompted(question: Callable[[], T]) -> T:
    """The user's answer to a prompt; after Ctrl-C, end the line of the prompt."""
    try:
        return question()
    except click.Abort:
        echo_err("")
        raise


def interrupted(exc: BaseException) -> bool:
    """Whether `exc` is Ctrl-C, or an exception group that contains it."""
    return find(exc, KeyboardInterrupt) is not None


def show_note(event: dict[str, Any]) -> None:
    """Print the notes among a request's events; for commands that show no progress."""
    if event.get("event") == "note":
        note(str(event.get("text", "")))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, widest: int = 60) -> None:
    """Print rows in aligned columns.

    Cells are cut to `widest`, except in the first column, so that users can copy the name there.
    """
    plain = ([printable(cell, 1000) for cell in row] for row in rows)
    safe = [(first, *(clip(cell, widest) for cell in rest)) for first, *rest in plain]
    lines = [tuple(head), *safe]
    widths = [max(width(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = [pad(cell, columns) for cell, columns in zip(line, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Print lines of `name: value` with aligned values; skip pairs without a value."""
    kept = [(name, value) for name, value in pairs if value]
    columns = max((len(name) for name, _ in kept), default=0) + 2
    for name, value in kept:
        click.echo(f"{name + ':':<{columns}}{printable(value, 2000)}")


def clock(seconds: float) -> str:
    """Format unix seconds as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
