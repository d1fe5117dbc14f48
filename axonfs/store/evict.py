"""Chooses the objects to evict.

All is one concept: a *limit* is what some objects may take together. The whole cache has one, the
models of a namespace may have one, and objects that nothing used for long have one of no bytes.
Where a limit is exceeded, the least recently used of its objects go.

Pure; Store.evict evicts them.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from axonfs.store.records import ObjectInfo

# Evict a little more than needed, so that not every chunk causes an eviction.
HEADROOM = 0.95


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits beside that of the whole cache: the seconds for which an object stays that
    nothing uses (0: for ever), and bytes by the scope of a quota."""

    ttl: float = 0.0
    quotas: Mapping[str, int] = field(default_factory=dict)


NO_RULES = Rules()


@dataclass(frozen=True, slots=True)
class Limit:
    """What objects may take, in bytes; if they take more, they are evicted down to `goal`.

    `keys` are the objects, by their keys in the index; None for all.
    """

    most: int
    goal: int
    keys: Container[str] | None = None

    def covers(self, info: ObjectInfo) -> bool:
        """Whether it is a limit for this object."""
        return self.keys is None or info.digest in self.keys


@dataclass(frozen=True, slots=True)
class Eviction:
    """The result of an eviction, in bytes; `short_by` is how much the whole cache is still over
    its limit, and `taken` what the objects of each quota take."""

    freed: int
    digests: list[str]
    short_by: int
    taken: Mapping[str, int] = field(default_factory=dict)


def limits_of(
    infos: Collection[ObjectInfo],
    rules: Rules,
    objects: Mapping[str, Container[str]],
    now: float,
) -> list[Limit]:
    """The limits of some rules, at the time `now`, in unix seconds.

    Args:
        objects: the digests that the models of each quota's scope have.
    """
    found = []
    if rules.ttl:
        unused = {info.digest for info in infos if now - info.accessed > rules.ttl}
        found.append(Limit(0, 0, unused))
    for scope, most in rules.quotas.items():
        keys = {info.digest for info in _members(infos, objects[scope])}
        found.append(Limit(most, int(most * HEADROOM), keys))
    return found


def taken(infos: Collection[ObjectInfo], objects: Mapping[str, Container[str]]) -> dict[str, int]:
    """What the objects of each scope take, in bytes."""
    return {
        scope: sum(info.present_bytes for info in _members(infos, digests))
        for scope, digests in objects.items()
    }


def _members(infos: Iterable[ObjectInfo], digests: Container[str]) -> Iterable[ObjectInfo]:
    return (info for info in infos if info.content in digests)


def choose_victims(
    infos: Collection[ObjectInfo], pinned: set[str], held: set[str], limits: Sequence[Limit]
) -> list[str]:
    """Choose objects, least recently used first, until each limit is kept.

    Pinned and held objects are never chosen. Quarantined objects come first, since they are not
    served. What goes for one limit counts for the next ones. If the objects that can go do not
    suffice, all of them are chosen.
    """
    candidates = [
        info
        for info in infos
        if info.present_bytes > 0 and info.digest not in held and info.content not in pinned
    ]
    candidates.sort(key=lambda info: (info.quarantined is None, info.accessed, info.digest))
    victims: dict[str, None] = {}
    for limit in limits:
        covered = (info for info in infos if info.digest not in victims and limit.covers(info))
        used = sum(info.present_bytes for info in covered)
        if used <= limit.most:
            continue
        for info in candidates:
            if used <= limit.goal:
                break
            if info.digest not in victims and limit.covers(info):
                victims[info.digest] = None
                used -= info.present_bytes
    return list(victims)
