"""Totals over all objects of one store.

Below presence. Changed under the index's writer lock; read from any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Totals over all objects; changed under the writer lock.

    `bytes` counts local bytes; `quarantined` maps a content's digest to the cause.
    """

    bytes: int = 0
    quarantined: dict[str, str] = field(default_factory=dict)

    def mark(self, digest: str, cause: str | None) -> None:
        """Record that an object is quarantined; with None, that it is not."""
        if cause is None:
            self.quarantined.pop(digest, None)
        else:
            self.quarantined[digest] = cause
