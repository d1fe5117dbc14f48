"""Keeps what counters counted in earlier workers, so that they go on over restarts.

The holder passes a file in memory from worker to worker. It has two slots, and each save writes the
older one: a worker that is killed while it writes leaves the other. Any thread, one at a time.
"""

from __future__ import annotations

import json
import logging
import os
import time
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from axonfs.observe.family import Distribution, Family, Labels, Value

log = logging.getLogger(__name__)

# Bytes of a slot, which takes no memory before it is written; enough for MOST_SERIES, each with
# three labels of 200 characters.
SLOT = 32 << 20
# One worker has 9,500 at the most (fetch/tallies.py). Site caches whose addresses change add up.
MOST_SERIES = 16_000
# Stands in the file for the name of a family.
_BEGAN = "began"

Totals: TypeAlias = dict[str, dict[Labels, Value]]


class Meters:
    """The totals of one mount, in the file `descriptor`.

    A worker adds what it counts to what the file had when the worker began. `began` is when the
    first one did, in unix seconds.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        found = [_slot(descriptor, number) for number in range(2)]
        self._number, self._before = max(found, key=lambda one: one[0])
        began = self._before.pop(_BEGAN, {}).get(())
        self.began = began if isinstance(began, float) else time.time()

    def total(self, families: Iterable[Family]) -> list[Family]:
        """The families with the totals of all workers, series of earlier ones included, unless
        these are too many: then what only earlier workers counted begins anew."""
        now = list(families)
        found = self._added(now)
        if (known := _series(found)) > MOST_SERIES:
            of_now = {one.name: one.samples for one in now}
            self._before = {
                name: {labels: before[labels] for labels in before.keys() & of_now.get(name, {})}
                for name, before in self._before.items()
            }
            found = self._added(now)
            gone = known - _series(found)
            log.info("%d counters of earlier workers begin anew: there are %d", gone, known)
        return found

    def _added(self, now: list[Family]) -> list[Family]:
        return [
            one.having(_sum(self._before.get(one.name, {}), one)) if one.grows else one
            for one in now
        ]

    def save(self, families: Iterable[Family]) -> None:
        """Write totals for the next worker."""
        totals: dict[str, Mapping[Labels, Value]] = {
            one.name: one.samples for one in families if one.grows
        }
        totals[_BEGAN] = {(): self.began}
        plain = {name: _plain(samples) for name, samples in totals.items()}
        text = json.dumps(plain, ensure_ascii=False).encode()
        self._number += 1
        head = f"{self._number} {len(text)} {zlib.crc32(text)}\n".encode()
        os.pwrite(self._descriptor, head + text, SLOT * (self._number % 2))


def _series(families: Iterable[Family]) -> int:
    return sum(len(one.samples) for one in families if one.grows)


def _sum(before: dict[Labels, Value], now: Family) -> dict[Labels, Value]:
    found = dict(before)
    for labels, value in now.samples.items():
        known = found.get(labels)
        if isinstance(value, Distribution):
            found[labels] = known + value if isinstance(known, Distribution) else value
        else:
            found[labels] = value + (known if isinstance(known, int | float) else 0)
    return found


def _plain(samples: Any) -> list[Any]:
    return [
        [labels, value.plain() if isinstance(value, Distribution) else value]
        for labels, value in samples.items()
    ]


def _slot(descriptor: int, number: int) -> tuple[int, Totals]:
    """The number of a save and its totals; 0 and none if the slot is empty or torn."""
    head = os.pread(descriptor, 64, SLOT * number).partition(b"\n")[0]
    try:
        saved, size, checksum = map(int, head.split())
        text = os.pread(descriptor, min(size, SLOT), SLOT * number + len(head) + 1)
        if zlib.crc32(text) != checksum:
            return 0, {}
        return saved, {name: _samples(plain) for name, plain in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):  # of another version, or torn
        return 0, {}


def _samples(plain: list[Any]) -> dict[Labels, Value]:
    return {
        tuple(labels): Distribution.of(value) if isinstance(value, list) else value
        for labels, value in plain
    }
