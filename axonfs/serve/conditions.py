"""The request headers that decide which bytes are answered: Range, If-Range, If-None-Match.

Pure. HTTP's inclusive ranges end here. Source: RFC 9110, sections 13 and 14.
"""

from __future__ import annotations

import re

from axonfs.ranges import Range

_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", re.IGNORECASE)


def wanted_range(header: str | None, size: int) -> Range | None:
    """The bytes that a Range header asks of a body of `size` bytes, None if it is all of them.

    An empty range means that it cannot be satisfied (416). Several ranges and anything that is
    not understood ask for the whole, as a server may answer.
    """
    match = _RANGE.fullmatch(header or "")
    if not match or match.group(1, 2) == ("", ""):
        return None
    first, last = match.group(1, 2)
    if not first:  # the last so many bytes
        return Range(max(size - int(last), 0), size)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        return Range(size, size)
    return Range(start, min(int(last) + 1, size) if last else size)


def holds_etag(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names `etag` (compared weakly, as it is for this header)."""
    if not header:
        return False
    named = (item.strip().removeprefix("W/") for item in header.split(","))
    return any(item in ("*", etag) for item in named)


def range_holds(header: str | None, etag: str) -> bool:
    """Whether an If-Range header lets the Range header count. A date never does: the ETag is
    the stronger validator and every answer has one."""
    return header is None or header.strip() == etag
