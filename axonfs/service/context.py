"""What every operation has at hand: the engine, the tree of this request, and a way to report.

Trio thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import trio

from axonfs.config import Settings
from axonfs.engine import Engine
from axonfs.errors import NotFoundError, UsageError
from axonfs.fetch import Fetcher
from axonfs.names import LATEST, Spec, newest, version_key
from axonfs.store import Store
from axonfs.tree import Tree
from axonfs.versions import Wanted, parse_wanted

Event: TypeAlias = "dict[str, Any]"

MANY = 10  # versions that a message names at most


@dataclass(frozen=True, slots=True)
class Context:
    """One request's surroundings; `tree` is over its own registries where it named some."""

    engine: Engine
    tree: Tree
    live: Callable[[], dict[str, Any]]
    events: trio.MemorySendChannel[Event]

    @property
    def store(self) -> Store:
        """The engine's store."""
        return self.engine.store

    @property
    def fetcher(self) -> Fetcher:
        """The engine's fetcher."""
        return self.engine.fetcher

    @property
    def settings(self) -> Settings:
        """The engine's settings."""
        return self.engine.settings

    def path_of(self, spec: Spec) -> str | None:
        """The version's directory in the mount; None where nothing is mounted."""
        mountpoint = self.live().get("mountpoint")
        return "/".join((str(mountpoint).rstrip("/"), *spec.segments)) if mountpoint else None

    async def note(self, text: str) -> None:
        """Tell the person something that is not the result."""
        await self.events.send({"event": "note", "text": text})


def wanted_of(request: Event) -> list[Wanted]:
    """The request's `specs`, each once."""
    specs = request.get("specs") or []
    if not isinstance(specs, list):
        raise UsageError("specs is not a list")
    return list(dict.fromkeys(parse_wanted(str(spec)) for spec in specs))


async def offered(context: Context, wanted: Wanted, *, fresh: bool = False) -> Spec:
    """The version among all that there are; `latest` and constraints are looked up.

    Raises:
        NotFoundError: there is no model, or no version of it that the constraint allows.
        AxonError: a source could not be asked.
    """
    if wanted.exact:
        return wanted.spec
    found = await context.tree.versions(wanted.spec.model, fresh=fresh)
    if not found.versions:
        raise context.tree.unknown(wanted.spec.model)
    version = wanted.constraint.highest(found.versions) if wanted.constraint else found.latest
    return await _said(context, wanted, version, found.versions)


async def held(context: Context, wanted: Wanted, versions: Iterable[str]) -> Spec:
    """The version among `versions`, those that are here; `latest` is the newest of them.

    Raises:
        NotFoundError: there is none that is meant.
    """
    if wanted.exact:
        return wanted.spec
    here = sorted(versions, key=version_key)
    version = wanted.constraint.highest(here) if wanted.constraint else newest(here)
    return await _said(context, wanted, version, here)


async def _said(
    context: Context, wanted: Wanted, version: str | None, among: Sequence[str]
) -> Spec:
    if version is None:
        there = ", ".join(among[-MANY:]) or "nothing"
        raise NotFoundError(
            f"no version matches {wanted.constraint or LATEST}",
            spec=wanted.spec.model,
            hint=f"there is {there}",
        )
    spec = replace(wanted.spec, version=version)
    if wanted.constraint:
        await context.note(f"{wanted} is {spec}")
    return spec
