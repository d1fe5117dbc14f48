"""What each operation gets: the engine, the request's tree, and a channel for its events.

Trio thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import trio

from axonfs.call import Event as Event
from axonfs.catalog.tree import Tree
from axonfs.engine import Engine
from axonfs.errors import NotFoundError, UsageError, naming
from axonfs.fetch import Fetcher
from axonfs.formats.listing import Versions
from axonfs.names import LATEST, Spec, newest, version_key
from axonfs.service.pinning import Pinning
from axonfs.settings.settings import Settings
from axonfs.sources import Hub
from axonfs.store import Store
from axonfs.versions import Constraint, Wanted, parse_wanted

MANY = 10  # versions that a message names at most


@dataclass(frozen=True, slots=True)
class Context:
    """The context of one request; `tree` has the request's own registries if it names some."""

    engine: Engine
    tree: Tree
    live: Callable[[], dict[str, Any]]
    events: trio.MemorySendChannel[Event]
    pinning: Pinning

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
        """The version's directory in the mount; None if nothing is mounted."""
        mountpoint = self.live().get("mountpoint")
        return "/".join((str(mountpoint).rstrip("/"), *spec.segments)) if mountpoint else None

    async def note(self, text: str) -> None:
        """Send a note for the user."""
        await self.events.send({"event": "note", "text": text})


def wanted_of(request: Event) -> list[Wanted]:
    """The request's `specs`, each once."""
    return list(dict.fromkeys(map(parse_wanted, texts_of(request, "specs"))))


def texts_of(request: Event, key: str) -> list[str]:
    """The request's list of texts under `key`; empty if it is missing.

    Raises:
        UsageError: it is not a list.
    """
    texts = request.get(key) or []
    if not isinstance(texts, list):
        raise UsageError(f"{key} is not a list")
    return [str(text) for text in texts]


async def versions_of(context: Context, model: str, *, fresh: bool = False) -> Versions:
    """All versions of the model; errors name the model."""
    with naming(spec=model):
        return await context.tree.versions(model, fresh=fresh)


async def resolve(context: Context, wanted: Wanted, *, fresh: bool = False) -> Spec:
    """Resolve `latest` or a constraint among all versions, listed or local.

    If the list names no latest version, `latest` is returned: the tree resolves it.

    Raises:
        NotFoundError: no such model, or no version that the constraint allows, and all sources
            answered.
        AxonError: a source did not answer.
    """
    if wanted.exact:
        return wanted.spec
    found = await versions_of(context, wanted.spec.model, fresh=fresh)
    if wanted.constraint is None:
        return replace(wanted.spec, version=found.latest or LATEST)
    if wanted.constraint.highest(found.usable) is None and context.tree.outages.listing_pending():
        await context.tree.wait_for_listings(wanted.spec.model)
        found = await versions_of(context, wanted.spec.model)
    if not found.versions:
        raise context.tree.outages.not_found(wanted.spec.model)
    # The versions of a hub are commits or digests, so that its tags are meant.
    return await _chosen(context, wanted, wanted.constraint, [*found.usable, *found.aliases])


async def resolve_local(context: Context, wanted: Wanted, versions: Iterable[str]) -> Spec:
    """Resolve `latest` or a constraint among the local `versions`; sends nothing.

    Raises:
        NotFoundError: the constraint allows none of them.
    """
    if hub := context.tree.hub(wanted.spec.model):
        return await _seen(hub, wanted.spec, versions)
    if wanted.exact:
        return wanted.spec
    here = sorted(versions, key=version_key)
    if wanted.constraint is None:
        return replace(wanted.spec, version=newest(here) or LATEST)
    return await _chosen(context, wanted, wanted.constraint, here)


async def _seen(hub: Hub, spec: Spec, versions: Iterable[str]) -> Spec:
    """Resolve a branch or tag to the commit that it had when the hub last answered."""
    commit = await hub.alias(spec, offline=True)
    here = list(versions)
    if spec.version == LATEST and commit not in here:
        return replace(spec, version=newest(here) or LATEST)
    return replace(spec, version=commit) if commit else spec


async def _chosen(
    context: Context, wanted: Wanted, constraint: Constraint, among: Sequence[str]
) -> Spec:
    version = constraint.highest(among)
    if version is None:
        raise context.tree.outages.doubt(wanted.spec.model) or NotFoundError(
            f"no version matches {constraint}",
            spec=wanted.spec.model,
            hint=f"available: {', '.join(among[-MANY:]) or 'none'}",
        )
    spec = replace(wanted.spec, version=version)
    await context.note(f"{wanted} is {spec}")
    return spec
