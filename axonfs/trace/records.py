"""The format of a trace: one JSON array per line, whose first item says what kind of record it is.

Pure. The first line is `["axonfs trace", 1, BEGAN]`, with BEGAN in unix seconds; all other times
are seconds since then. docs/operations.md describes the records. A reader skips kinds that it does
not know, and items behind those that it knows, so records may grow.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeAlias

from axonfs.units import LAST_SECOND

NAME, VERSION = "axonfs trace", 1
# What a trace begins with; `TraceFile` goes on in no other file.
MAGIC = f'["{NAME}", {VERSION}, '.encode()

ASKED = "asked for"  # why a trace ends if a user wanted it

Record: TypeAlias = list[Any]


def header(began: float) -> Record:
    """The first record of a trace that begins at this unix time."""
    return [NAME, VERSION, round(began, 3)]


def began(line: bytes) -> float | None:
    """When the trace with this first line began; None if that is no first line of a trace."""
    try:
        name, version, time, *_ = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return None
    known = (name, version) == (NAME, VERSION) and isinstance(time, int | float)
    return float(time) if known and 0 < time < LAST_SECOND else None


def encoded(records: Iterable[Record]) -> bytes:
    """Records as lines, in ASCII."""
    return "".join([json.dumps(record) + "\n" for record in records]).encode("ascii")
