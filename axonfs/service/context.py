"""What every operation has at hand: the engine, the tree of this request, and a way to report.

Trio thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import trio

from axonfs.config import Settings
from axonfs.engine import Engine
from axonfs.errors import UsageError
from axonfs.fetch import Fetcher
from axonfs.names import LATEST, Spec, parse_spec
from axonfs.store import Store
from axonfs.tree import Tree

Event: TypeAlias = "dict[str, Any]"


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


def specs_of(request: Event) -> list[Spec]:
    """The request's `specs`, each once."""
    specs = request.get("specs") or []
    if not isinstance(specs, list):
        raise UsageError("specs is not a list")
    return list(dict.fromkeys(parse_spec(str(spec)) for spec in specs))


async def exact(context: Context, spec: Spec) -> Spec:
    """`spec` with `latest` resolved."""
    if spec.version != LATEST:
        return spec
    return (await context.tree.version(spec)).spec
