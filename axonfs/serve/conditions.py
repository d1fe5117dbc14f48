"""The request headers that select the bytes of an answer: Range, If-Range, If-None-Match.

Pure. HTTP's inclusive ranges become half-open ones here. Source: RFC 9110, sections 13 and 14.
"""

from __future__ import annotations

import re

from axonfs.ranges import Range

_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", re.IGNORECASE)


def wanted_range(header: str | None, size: int) -> Range | None:
    """The bytes of a body of `size` bytes that a Range header selects; None for the whole body.

    An empty range means 416, range not satisfiable. Several ranges and malformed headers select
    the whole body, which RFC 9110 allows.
    """
    match = _RANGE.fullmatch(header or "")
    if not match or match.group(1, 2) == ("", ""):
        return None
    first, last = match.group(1, 2)
    if not first:  # bytes=-N: the last N bytes
        return Range(max(size - int(last), 0), size)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        return Range(size, size)
    return Range(start, min(int(last) + 1, size) if last else size)


def holds_etag(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names `etag`, by the weak comparison that it requires."""
    if not header:
        return False
    named = (item.strip().removeprefix("W/") for item in header.split(","))
    return any(item in ("*", etag) for item in named)


def range_holds(header: str | None, etag: str) -> bool:
    """Whether the Range header applies, given this If-Range header.

    A date in If-Range never matches: every answer has an ETag, which is the stronger validator.
    """
    return header is None or header.strip() == etag
