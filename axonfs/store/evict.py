"""Chooses the objects to evict when the cache is over its limit.

Pure; Store.evict evicts them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from axonfs.store.records import ObjectInfo


@dataclass(frozen=True, slots=True)
class Eviction:
    """The result of an eviction, in bytes; `short_by` is how much it is still over the limit."""

    freed: int
    digests: list[str]
    short_by: int


def choose_victims(
    infos: Iterable[ObjectInfo], pinned: set[str], held: set[str], over: int
) -> list[str]:
    """Choose objects, least recently used first, until `over` bytes are freed.

    Pinned and held objects are never chosen. Quarantined objects come first, since they are not
    served. If the other objects have fewer than `over` bytes, all of them are chosen.
    """
    candidates = [
        info
        for info in infos
        if info.present_bytes > 0
        and info.digest not in held
        and (info.private_of or info.digest) not in pinned
    ]
    candidates.sort(key=lambda info: (info.quarantined is None, info.accessed, info.digest))
    victims = []
    for info in candidates:
        if over <= 0:
            break
        victims.append(info.digest)
        over -= info.present_bytes
    return victims
