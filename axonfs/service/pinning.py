"""Which pins are being fetched now, and how far they are. Trio thread only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from axonfs.ahead.bulk import Bulk
from axonfs.service.selection import Selection


class Pinning:
    """The pins that are being fetched."""

    def __init__(self) -> None:
        self._bulks: dict[Bulk, Selection] = {}

    @contextmanager
    def noting(self, selection: Selection, bulk: Bulk) -> Iterator[None]:
        """Count a pin as under way while the block runs."""
        self._bulks[bulk] = selection
        try:
            yield
        finally:
            del self._bulks[bulk]

    def statistics(self) -> list[dict[str, Any]]:
        """Their progress for `status`, in bytes."""
        return [
            {
                "spec": str(selection.version.spec),
                "path": bulk.path,
                "size": selection.size,
                "local": bulk.local,
                "fetched": bulk.fetched,
            }
            for bulk, selection in self._bulks.items()
        ]
