"""How long operations took, as counts by bucket. Pure; below operations, which counts by them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

# Upper bounds of the buckets, in µs; one more bucket has what took longer. As BUCKETS and LEAST in
# native/operations.c.
BOUNDS = tuple(1 << power for power in range(4, 28))
_LEAST = 4
_BILLION = 1_000_000_000


@dataclass(slots=True)
class Latency:
    """How long operations of one kind took: counts by bucket."""

    nanoseconds: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    def note(self, took: int) -> None:
        """Count one that took `took` nanoseconds."""
        self.nanoseconds += took
        power = (-(-took // 1000) - 1).bit_length() if took > 1000 else 0
        self.buckets[min(max(power - _LEAST, 0), len(BOUNDS))] += 1

    def add(self, other: Latency) -> None:
        """Add another's counts."""
        self.nanoseconds += other.nanoseconds
        self.buckets = [mine + more for mine, more in zip(self.buckets, other.buckets, strict=True)]

    def report(self) -> dict[str, Any]:
        """For `status`: the buckets that are not empty, by upper bound in seconds; not added up."""
        bounds = [*(f"{bound / 1e6:g}" for bound in BOUNDS), "inf"]
        return {
            "count": sum(self.buckets),
            "seconds": self.nanoseconds / _BILLION,
            "buckets": {
                bound: count for bound, count in zip(bounds, self.buckets, strict=True) if count
            },
        }


def total(latencies: Iterable[Latency]) -> Latency:
    """All of them in one."""
    found = Latency()
    for latency in latencies:
        found.add(latency)
    return found
