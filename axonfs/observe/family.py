"""A family of metrics: one figure with its labels. Pure; imports nothing of the package but names.

Names follow Prometheus: base units, `_total` for what only grows (which the exposition adds), and
labels whose values are few.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from axonfs.names import printable

PREFIX = "axonfs_"

Kind: TypeAlias = Literal["counter", "gauge", "info", "histogram", "summary"]
Labels: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Distribution:
    """How often something was measured, and the sum, in seconds; `buckets` count the values up to a
    bound and above the bound before it."""

    count: float = 0
    seconds: float = 0.0
    buckets: Mapping[float, float] = field(default_factory=dict)

    def __add__(self, other: Distribution) -> Distribution:
        bounds = sorted({*self.buckets, *other.buckets})
        both = {bound: self.buckets.get(bound, 0) + other.buckets.get(bound, 0) for bound in bounds}
        return Distribution(self.count + other.count, self.seconds + other.seconds, both)

    def plain(self) -> list[Any]:
        """For JSON."""
        return [self.count, self.seconds, list(self.buckets.items())]

    @classmethod
    def of(cls, plain: list[Any]) -> Distribution:
        count, seconds, buckets = plain
        return cls(count, seconds, {float(bound): number for bound, number in buckets})


Value: TypeAlias = float | Distribution


@dataclass(frozen=True, slots=True)
class Family:
    """The values of one name, by the values of its labels.

    Args:
        name: with the prefix, and without `_total`.
        help: one sentence.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    samples: Mapping[Labels, Value] = field(default_factory=dict)

    @property
    def grows(self) -> bool:
        """Whether its values only grow, so that they go on from worker to worker."""
        return self.kind in ("counter", "histogram", "summary")

    def having(self, samples: Mapping[Labels, Value]) -> Family:
        """The same family with other samples."""
        return replace(self, samples=samples)


def family(
    kind: Kind, name: str, text: str, samples: Mapping[Any, Value] | float | None, *labels: str
) -> Family:
    """A family; without labels its one value stands for `samples`, and None for no value."""
    if samples is None:
        found: dict[Labels, Value] = {}
    elif isinstance(samples, Mapping):
        found = {_labels(key): value for key, value in samples.items()}
    else:
        found = {(): samples}
    return Family(PREFIX + name, kind, text, labels, found)


def _labels(key: Any) -> Labels:
    """Values of labels without what breaks a terminal or UTF-8."""
    parts = key if isinstance(key, tuple) else (key,)
    return tuple(printable(str(part)) for part in parts)


Gather: TypeAlias = Callable[[], list[Family]]
