"""Which objects to give up when the cache is over its limit.

Pure: the choice alone. Store.evict carries it out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from axonfs.store.records import ObjectInfo


@dataclass(frozen=True, slots=True)
class Eviction:
    """What an eviction did, in bytes; `short_by` is what is still over the limit."""

    freed: int
    digests: list[str]
    short_by: int


def choose_victims(
    infos: Iterable[ObjectInfo], pinned: set[str], held: set[str], over: int
) -> list[str]:
    """Whole objects, least recently used first, until `over` bytes are freed.

    Never a pinned or a held one. An object whose digest failed goes first: nobody is served from
    it. Fewer bytes than `over` are named where there are no more.
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
