"""A small document that was fetched over HTTP and is kept: an index, a list of versions.

Pure. Below the store, which keeps documents, and the sources, which fetch them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """A kept document.

    Args:
        fetched: when its source last confirmed it, in unix seconds.
        final_url: its URL after redirects.
    """

    body: bytes
    etag: str | None
    fetched: float
    final_url: str
