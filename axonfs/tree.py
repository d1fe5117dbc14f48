"""Which models exist, and what a spec resolves to.

Sits between vfs (and the commands) and {store, remote}. Merges the indexes of all sources, first
source wins, with the versions that are known locally, and resolves names that no index lists.
What was resolved once is in the store and is never asked for again: a published version does not
change. Trio thread only; network calls are shared by everyone who asks for the same thing.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar, cast

import trio

from axonfs.catalog import Listing, Versions, ranked, search
from axonfs.errors import (
    AccessDeniedError,
    AxonError,
    NotFoundError,
    OfflineError,
    ShortageError,
    fault_of,
)
from axonfs.flights import Flights, LateError
from axonfs.manifest import FileEntry, Manifest
from axonfs.names import LATEST, Spec, parse_spec
from axonfs.remote import Hub, Source
from axonfs.shelves import Catalog, Shelf
from axonfs.store import Store

log = logging.getLogger(__name__)

# How long an index is taken as current, in seconds. A name it lacks is looked up at once.
TTL = 60.0
# A forced refresh is refused when the last one is younger than this.
MIN_AGE = 5.0
# A registry that says nothing for so many seconds no longer keeps the next one from answering.
HEAD_START = 5.0
# Kept in memory, manifests and lists of versions; the store has the rest.
MEMO_MANIFESTS = 256
MEMO_ANSWERS = 16384

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A resolved version: its manifest, and where the objects' URLs start."""

    manifest: Manifest
    base: str
    source: Source | None

    @property
    def spec(self) -> Spec:
        """The version's own name, never `latest`."""
        return self.manifest.spec

    def holding(self, entry: FileEntry) -> FileEntry:
        """The version's own file with the content of `entry`, which may be another version's."""
        own = self.manifest.file(entry.path)
        if own is not None and own.digest == entry.digest:
            return own
        return next((own for own in self.manifest.files if own.digest == entry.digest), entry)


@dataclass(slots=True)
class _Answer:
    value: Any
    asked: float  # when it was given
    tried: float = -math.inf  # when another was last asked for in the background


@dataclass(slots=True)
class SourceState:
    """How a source answered last, for `status`."""

    error: str | None = None
    since: float = 0.0
    indexed: bool = True


class Tree:
    """The names of all sources. `found` is told of a hub's version that is known from then on.

    Args:
        sources: the registries, in order of preference.
        hubs: by the namespace that each serves; it is not looked for in the registries.
        nursery: runs the network calls; they outlive the task that asked.
        head_start: seconds for which a silent registry keeps the next one from answering.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        store: Store,
        nursery: trio.Nursery,
        *,
        offline: bool = False,
        hubs: Mapping[str, Hub] | None = None,
        head_start: float = HEAD_START,
    ) -> None:
        self.sources = tuple(sources)
        self.hubs = hubs or {}
        self.store = store
        self.offline = offline
        self.found: Callable[[Spec], None] = lambda spec: None
        self.states = {source.url: SourceState() for source in sources}
        self.head_start = head_start
        self._nursery = nursery
        self._flights = Flights(nursery)
        self._answers: dict[Hashable, _Answer] = {}
        self._listed: dict[str, list[Listing]] = {}
        self._versions: dict[Spec, Version] = {}

    # -- what changes: served as it was while it is asked again ---------------------------------

    async def _recent(
        self, key: Hashable, call: Callable[[], Awaitable[T]], *, fresh: bool = False
    ) -> T:
        """The answer to `key`, asked again in the background when it is older than the TTL."""
        known = self._answers.get(key)
        age = trio.current_time() - known.asked if known else math.inf
        if known and (age < MIN_AGE or not fresh):
            if age >= TTL and trio.current_time() - known.tried >= TTL:
                known.tried = trio.current_time()
                self._nursery.start_soon(self._ask_quietly, key, call)
            return cast(T, known.value)
        return await self._ask(key, call, fresh=fresh)

    async def _ask(
        self, key: Hashable, call: Callable[[], Awaitable[T]], *, fresh: bool = False
    ) -> T:
        value = await self._flights.join(key, call, fresh=fresh)
        if len(self._answers) >= MEMO_ANSWERS:
            self._answers.clear()
        self._answers[key] = _Answer(value, trio.current_time())
        return value

    async def _ask_quietly(self, key: Hashable, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            await self._ask(key, call)
        except Exception as exc:
            if (known := fault_of(exc)) is None:
                raise
            log.info("keeping what was known: %s", known)

    def heard(self, model: str | None = None) -> bool:
        """Whether the catalog, or what versions `model` has, is known: asking does not wait."""
        return (("versions", model) if model else "catalog") in self._answers

    def invalidate(self) -> None:
        """Have everything that changes asked for again (a pin added a version, say)."""
        for answer in self._answers.values():
            answer.asked = answer.tried = -math.inf

    # -- the catalog -----------------------------------------------------------------------

    async def catalog(self, *, fresh: bool = False) -> Catalog:
        """What is listed.

        Args:
            fresh: wait for the sources unless they were asked a moment ago.

        Raises:
            AxonError: no source answers and nothing is known locally.
        """
        return await self._recent("catalog", self._list_all, fresh=fresh)

    async def _list_all(self) -> Catalog:
        failures = await self._flights.together("list", self.sources, self._list, self.head_start)
        local = await trio.to_thread.run_sync(self.store.specs)
        listed = [item for source in self.sources for item in self._listed.get(source.url, [])]
        listings = [item for item in listed if item.spec.namespace not in self.hubs]
        if failures and not listings and not local:
            raise failures[0]
        return await trio.to_thread.run_sync(Catalog, listings, local)

    async def _list(self, source: Source) -> None:
        listings: list[Listing] | None = None
        try:
            listings = await source.listings(offline=self.offline)
            self.answered(source, source.denial)
            self.states[source.url].indexed = listings is not None
        except AxonError as exc:
            self.answered(source, exc)
            listings = self._listed.get(source.url) or await _kept(source.listings(offline=True))
            raise
        finally:
            if self._listed.get(source.url) != listings:
                self._answers.pop("catalog", None)  # made without it, if it took long
            self._listed[source.url] = listings or []

    def answered(self, source: Source, error: AxonError | None) -> None:
        """Note how a source answered; a change goes to the log once. A shortage is none of its."""
        if isinstance(error, ShortageError):
            return
        state = self.states[source.url]
        if error and state.error is None:
            log.warning("%s", error)
            state.since = time.time()
        elif error is None and state.error is not None:
            log.info("%s answers again", source.url)
            state.since = time.time()
        state.error = str(error) if error else None

    @property
    def indexed(self) -> bool:
        """Whether every source has an index, so that an unlisted name can be refused."""
        return all(state.indexed for state in self.states.values())

    # -- versions --------------------------------------------------------------------------

    async def version(self, spec: Spec) -> Version:
        """The version that `spec` names; `latest` is resolved.

        Raises:
            NotFoundError: every source says there is none.
            OfflineError: it is not known locally, and nothing may be sent.
            AxonError: a source that might have it could not be asked.
        """
        if spec.namespace in self.hubs:
            spec = await self._commit_spec(spec)
        elif spec.version == LATEST:
            spec = await self._latest_spec(spec)
        known = self._versions.get(spec)
        if known is None:
            known = await self._flights.join(spec, lambda: self._resolve(spec))
            self._remember(spec, known)
        return known

    async def known(self, spec: Spec) -> Version | None:
        """The version if its manifest is local; sends nothing."""
        found = self._versions.get(spec)
        if found is None:
            stored = await trio.to_thread.run_sync(self.store.manifest, spec)
            if stored is None:
                return None
            found = Version(stored.manifest, stored.base, self._source_of(spec, stored.base))
            self._remember(spec, found)
        return found

    def _remember(self, spec: Spec, version: Version) -> None:
        self._versions[spec] = version
        while len(self._versions) > MEMO_MANIFESTS:
            del self._versions[next(iter(self._versions))]

    def forget(self, spec: Spec) -> None:
        """Resolve `spec` anew the next time."""
        self._versions.pop(spec, None)

    async def _resolve(self, spec: Spec) -> Version:
        if (known := await self.known(spec)) is not None:
            return known
        if self.offline:
            raise OfflineError("not in the cache, and offline", spec=str(spec))
        if hub := self.hubs.get(spec.namespace):
            return await self._resolve_in(hub, spec)
        failure: AxonError | None = None
        async with self._in_turn(("manifest", spec), lambda one: one.manifest(spec)) as asked:
            async for source, found in asked:
                if isinstance(found, LateError):
                    continue
                self.answered(source, found if isinstance(found, AxonError) else None)
                if isinstance(found, AxonError):
                    failure = failure or found
                elif found is not None:
                    await trio.to_thread.run_sync(self.store.put_manifest, *found)
                    return Version(*found, source)
        if failure:
            raise failure.located(spec=str(spec))
        raise NotFoundError(
            "no such version", spec=str(spec), hint=f"see axonfs versions {spec.model}"
        )

    def _in_turn(
        self, key: Hashable, call: Callable[[Source], Awaitable[T]]
    ) -> aclosing[AsyncGenerator[tuple[Source, T | AxonError], None]]:
        """What each registry says, in their order, but for one that is silent."""
        return aclosing(self._flights.in_turn(key, self.sources, call, self.head_start))

    def _source_of(self, spec: Spec, base: str) -> Source | None:
        """The source whose objects are below `base`; any registry can carry an object's bytes."""
        if spec.namespace in self.hubs:
            return self.hubs[spec.namespace]
        for source in self.sources:
            if base.rstrip("/") == source.url.rstrip("/"):
                return source
        return self.sources[0] if self.sources else None

    async def _latest_spec(self, spec: Spec) -> Spec:
        latest = (await self.versions(spec.model)).latest
        if latest is None:
            raise self.unknown(spec.model)
        return Spec(spec.namespace, spec.name, latest)

    @property
    def denial(self) -> AccessDeniedError | None:
        """The refusal of a registry that tells nothing: what is not known may be there."""
        return next((source.denial for source in self.sources if source.denial), None)

    def unknown(self, model: str) -> AxonError:
        """What to tell of a model of which no version is known."""
        if self.denial:
            return self.denial.located(spec=model)
        hint = "try axonfs search" if self.indexed else "try axonfs search, or name its @VERSION"
        if not self.sources and "hf" in self.hubs:
            hint = f"no registry is configured; on the Hugging Face Hub it is hf/{model}"
        return NotFoundError("no such model", spec=model, hint=hint)

    async def versions(self, model: str, *, fresh: bool = False) -> Versions:
        """All versions of `namespace/name` that are listed or local, and which is `latest`.

        Args:
            fresh: wait for the sources unless they were asked a moment ago.

        Raises:
            AxonError: a source could not be asked and nothing is known.
        """
        hub = self.hubs.get(model.partition("/")[0])
        return await self._recent(
            ("versions", model),
            lambda: self._hub_versions(hub, model, fresh) if hub else self._all_versions(model),
            fresh=fresh,
        )

    async def _all_versions(self, model: str) -> Versions:
        shelf = (await self.catalog()).shelves.get(tuple(model.split("/")), Shelf())
        names, latest, failure = set(shelf.versions), None, None
        left = len(self.sources)

        async def ask(source: Source) -> Versions | None:
            down = self.states[source.url].error is not None and not source.denial
            return await source.versions(model, offline=self.offline or down)

        async with self._in_turn(("versions of", model), ask) as asked:
            async for source, answer in asked:
                left -= 1
                if isinstance(answer, LateError):
                    continue
                if isinstance(answer, AxonError):
                    self.answered(source, answer)
                    failure, answer = answer, await _kept(source.versions(model, offline=True))
                if answer is not None:
                    names.update(answer.versions)
                    latest = latest or answer.latest
                if names and left <= 0:
                    break  # that will do: the rest are late
        if failure and not names:
            raise failure
        return Versions.of(names, latest)

    # -- hubs --------------------------------------------------------------------------------

    async def target(self, spec: Spec) -> str | None:
        """The commit that the version of `spec`, a branch or tag of a hub's model, is at.

        None if there is none. A known answer is served while it is asked for again.

        Raises:
            OfflineError: it is not known locally, and nothing may be sent.
        """
        hub = self.hubs[spec.namespace]
        found = await self._recent(
            ("target", spec), lambda: hub.alias(spec, offline=self.offline, allow_stale=True)
        )
        if found is None and self.offline:
            raise OfflineError("not in the cache, and offline", spec=str(spec))
        return found

    async def local(self) -> Catalog:
        """What is known locally, of hubs and registries; sends nothing."""
        read = partial(trio.to_thread.run_sync, lambda: Catalog((), self.store.specs()))
        return await self._recent("local", read)

    async def _commit_spec(self, spec: Spec) -> Spec:
        commit = await self.target(spec)
        if commit is None:
            raise NotFoundError("no such model or revision", spec=str(spec))
        return Spec(spec.namespace, spec.name, commit)

    async def _resolve_in(self, hub: Hub, spec: Spec) -> Version:
        try:
            found = await hub.manifest(spec)
        except AxonError as exc:
            raise exc.located(spec=str(spec)) from exc
        if found is None:
            raise NotFoundError("no such model or commit", spec=str(spec))
        await trio.to_thread.run_sync(self.store.put_manifest, *found)
        self._answers.pop("local", None)
        self.found(spec)
        return Version(*found, hub)

    async def _hub_versions(self, hub: Hub, model: str, fresh: bool) -> Versions:
        """The commits that the hub's branches and tags are at, and those that are local."""
        local = (await self.local()).shelves.get(tuple(model.split("/")), Shelf()).versions
        asked = await hub.versions(model, offline=self.offline, allow_stale=not fresh)
        found = asked or Versions((), None)
        if fresh:  # whoever asks for a branch is to hear the same
            now = trio.current_time()
            for name, commit in {**found.aliases, LATEST: found.latest}.items():
                self._answers["target", parse_spec(f"{model}@{name}")] = _Answer(commit, now)
        return replace(found, versions=tuple(sorted({*found.versions, *local})))

    async def search(self, query: str) -> list[Listing]:
        """Listings that match, best first: from the index, else from a source's own search.

        Raises:
            AxonError: nothing matches, and a source could not search.
        """
        hits = await trio.to_thread.run_sync(search, (await self.catalog()).listings, query)
        found = {listing.spec: listing for listing in hits}
        failures: list[AxonError] = []
        for source in self.sources:
            if self.states[source.url].indexed or self.offline:
                continue
            try:
                found = {listing.spec: listing for listing in await source.search(query)} | found
            except AxonError as exc:
                failures.append(exc)
        if failures and not found:
            raise failures[0]
        for failure in failures:
            log.warning("%s", failure)
        return ranked(found.values(), query)


async def _kept(stored: Awaitable[T | None]) -> T | None:
    """What a source said earlier; None if that makes no sense either: it spoils only its own."""
    try:
        return await stored
    except AxonError:
        return None
