"""A small thing fetched over HTTP and kept for later: an index, a list of versions.

Pure, and below both the store that keeps documents and the sources that fetch them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """`fetched` is when its source last confirmed it, in unix seconds; `final_url` is where it
    was found after redirects."""

    body: bytes
    etag: str | None
    fetched: float
    final_url: str
