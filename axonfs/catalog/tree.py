"""Which models exist, and what a spec resolves to.

Sits between vfs (and the commands) and {store, sources}. Merges the indexes of all sources, first
source wins, with the versions that are known locally, and resolves names that no index lists.
What was resolved once is in the store and is never asked for again: a published version does not
change. Trio thread only; network calls are shared by everyone who asks for the same thing.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

import trio

from axonfs.catalog.catalog import Catalog
from axonfs.catalog.flights import Flights, LateError
from axonfs.catalog.memo import MIN_AGE, Memo
from axonfs.catalog.outages import Outages, kept
from axonfs.catalog.resolved import Version as Version
from axonfs.errors import AxonError, NotFoundError, OfflineError, naming
from axonfs.formats.listing import Listing, Versions
from axonfs.names import LATEST, Spec, is_commit, parse_spec
from axonfs.sources import Hub, Source
from axonfs.store import Store

# After this many seconds the next registry is asked beside one that is silent.
HEAD_START = 5.0
# The first listing waits for the sources this long, if anything is known without them.
PATIENCE = 5.0
# Manifests that are kept in memory; the store has the rest.
MEMO_MANIFESTS = 256

T = TypeVar("T")


class Tree:
    """The names of all sources.

    Args:
        registries: in order of preference.
        hubs: by the namespace that each serves; it is not looked for in the registries.
        nursery: runs the network calls; they outlive the task that asked.
        head_start: seconds for which a silent registry keeps the next one from answering.
        found: called with a hub's version that is known from then on.
    """

    def __init__(
        self,
        registries: Sequence[Source],
        store: Store,
        nursery: trio.Nursery,
        *,
        offline: bool = False,
        hubs: Mapping[str, Hub] | None = None,
        head_start: float = HEAD_START,
        found: Callable[[Spec], None] = lambda spec: None,
    ) -> None:
        self.registries = tuple(registries)
        self.hubs = hubs or {}
        self.store = store
        self.offline = offline
        self.outages = Outages(self.registries, self.hubs, self._drop_catalog, offline=offline)
        self.head_start = head_start
        self._found = found
        self._flights = Flights(nursery)
        self._memo = Memo(nursery, self._flights, lambda: self.outages.fault() is not None)
        self._dropped = -math.inf  # when the catalog was dropped last
        self._patience = PATIENCE
        self._listed: dict[str, list[Listing]] = {}
        self._versions: dict[Spec, Version] = {}

    def request_catalog(self) -> None:
        """Have the catalog asked for in the background unless it is known."""
        if not self.has_catalog():
            self._memo.ask_soon("catalog", self._list_all)

    def has_catalog(self) -> bool:
        """Whether the catalog is known: asking does not wait."""
        return "catalog" in self._memo

    def invalidate(self) -> None:
        """Have everything that changes asked for again (a pin added a version, say)."""
        self._memo.invalidate()

    def _drop_catalog(self) -> None:
        """A source answers again: what was listed without it may lack its models.

        At most once in MIN_AGE: a source of which only the index is missing answers often.
        """
        if (now := trio.current_time()) - self._dropped >= MIN_AGE:
            self._dropped = now
            self._memo.drop("catalog")

    # -- the catalog -----------------------------------------------------------------------

    async def catalog(self, *, fresh: bool = False) -> Catalog:
        """What is listed.

        Args:
            fresh: wait for the sources unless they were asked a moment ago. Else the first answer
                is waited for a moment, and what is known of earlier runs is listed meanwhile.

        Raises:
            AxonError: no source answers and nothing is known locally.
        """
        if not fresh and not self.has_catalog():
            with trio.move_on_after(self._patience):
                return await self._catalog()
            self._patience = 0.0
            earlier = await self._earlier()
            if earlier.listings or len(earlier.directories) > 1:
                return earlier
        return await self._catalog(fresh=fresh)

    async def _catalog(self, *, fresh: bool = False) -> Catalog:
        brief = self.outages.fault() is not None
        return await self._memo.recent("catalog", self._list_all, fresh=fresh, brief=brief)

    async def wait_for_listings(self, model: str = "") -> None:
        """Wait until each registry has listed its models or failed to.

        What was known of the versions of `model` before is forgotten.
        """
        for source in self.registries:
            if self.outages.of(source).listing:
                with suppress(AxonError):
                    await self._flights.join(("list", source), partial(self._list, source))
        self._memo.drop(("versions", model))

    async def _earlier(self) -> Catalog:
        """What was listed in earlier runs, and what is local."""
        listings = await self.outages.kept_listings()
        return await trio.to_thread.run_sync(lambda: Catalog(listings, self.store.specs()))

    async def _list_all(self) -> Catalog:
        failures = await self._flights.together(
            "list", self.registries, self._list, self.head_start
        )
        local = await trio.to_thread.run_sync(self.store.specs)
        if failures and not local and not self._listings():
            raise failures[0]
        while True:
            listings = self._listings()
            catalog = await trio.to_thread.run_sync(Catalog, listings, local)
            if listings == self._listings():  # else a slow source listed its models meanwhile
                return catalog

    def _listings(self) -> list[Listing]:
        """What the registries list of names that are no hub's, the first registry's first."""
        listed = [item for source in self.registries for item in self._listed.get(source.url, [])]
        return [item for item in listed if item.spec.namespace not in self.hubs]

    async def _list(self, source: Source) -> None:
        listings: list[Listing] | None = None
        state = self.outages.of(source)
        state.listing = True
        try:
            listings = await self.outages.ask(source, source.listings)
            state.indexed = listings is not None
            self.outages.listed(source, None)
        except AxonError as exc:
            self.outages.listed(source, exc)
            listings = self._listed.get(source.url) or await kept(source.listings(offline=True))
            raise
        finally:
            state.listing = False
            if self._listed.get(source.url) != listings:
                self._memo.drop("catalog")  # a slow source is missing in it
            self._listed[source.url] = listings or []

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
            found = Version(stored.manifest, stored.base, self.source_of(spec, stored.base))
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
        async with self._in_turn(
            ("manifest", spec), lambda one: self.outages.send(one, partial(one.manifest, spec))
        ) as asked:
            async for source, found in asked:
                if isinstance(found, LateError):
                    continue
                if isinstance(found, AxonError):
                    failure = failure or found
                elif found is not None:
                    await trio.to_thread.run_sync(self.store.put_manifest, *found)
                    return Version(*found, source)
        if failure:
            raise failure.located(spec=str(spec))
        raise self.outages.no_registry(str(spec)) or NotFoundError(
            "no such version", spec=str(spec), hint=f"see axonfs versions {spec.model}"
        )

    def _in_turn(
        self, key: Hashable, call: Callable[[Source], Awaitable[T]]
    ) -> aclosing[AsyncGenerator[tuple[Source, T | AxonError], None]]:
        """The answer or error of each registry in their order; silent ones come last."""
        return aclosing(self._flights.in_turn(key, self.registries, call, self.head_start))

    def source_of(self, spec: Spec, base: str) -> Source | None:
        """The source whose objects are below `base`; any registry can carry an object's bytes."""
        if spec.namespace in self.hubs:
            return self.hubs[spec.namespace]
        for source in self.registries:
            if base.rstrip("/") == source.url.rstrip("/"):
                return source
        return self.registries[0] if self.registries else None

    async def _latest_spec(self, spec: Spec) -> Spec:
        latest = (await self.versions(spec.model)).latest
        if latest is None:
            raise self.outages.not_found(spec.model)
        return Spec(spec.namespace, spec.name, latest)

    async def versions(self, model: str, *, fresh: bool = False) -> Versions:
        """All versions of `namespace/name` that are listed or local, and which is `latest`.

        Args:
            fresh: wait for the sources unless they were asked a moment ago.

        Raises:
            AxonError: a source could not be asked and nothing is known.
        """
        ask = partial(self._ask_versions, model, fresh)
        return await self._memo.recent(("versions", model), ask, fresh=fresh)

    def cached_versions(self, model: str) -> Versions | None:
        """What `versions` said last, None if it was not asked yet; waits for no source."""
        return self._memo.served(("versions", model), partial(self._ask_versions, model, False))

    async def _ask_versions(self, model: str, fresh: bool) -> Versions:
        if hub := self.hubs.get(model.partition("/")[0]):
            return await self._hub_versions(hub, model, fresh)
        return await self._all_versions(model, fresh)

    async def _all_versions(self, model: str, fresh: bool) -> Versions:
        with naming(spec=model):
            directory = (await self.catalog()).directory(tuple(model.split("/")))
        names, latest, failure = set(directory.versions), None, None
        left = len(self.registries)

        async def ask(source: Source) -> Versions | None:
            down = not self._patience or self.outages.of(source).failure
            if names and not fresh and down:
                return await source.versions(model, offline=True)
            return await self.outages.ask(source, partial(source.versions, model))

        async with self._in_turn(("versions of", model, fresh), ask) as asked:
            async for source, answer in asked:
                left -= 1
                if isinstance(answer, LateError):
                    continue
                if isinstance(answer, AxonError):
                    failure = failure or answer
                    answer = await kept(source.versions(model, offline=True))
                if answer is not None:
                    names.update(answer.versions)
                    latest = latest or answer.latest
                if names and left <= 0:
                    break  # each registry answered or is late
        if not names and (failure or self.offline):
            raise failure.located(spec=model) if failure else self.outages.not_found(model)
        return Versions.of(names, latest)

    # -- hubs --------------------------------------------------------------------------------

    async def target(self, spec: Spec) -> str | None:
        """The commit that the version of `spec`, a branch or tag of a hub's model, is at.

        None if there is none. A known answer is served while it is asked for again.

        Raises:
            OfflineError: it is not known locally, and nothing may be sent.
        """
        if is_commit(spec.version):
            return spec.version
        hub = self.hubs[spec.namespace]
        ask = partial(self.outages.ask_or_kept, hub, partial(hub.alias, spec))
        found = await self._memo.recent(("target", spec), ask)
        if found is None and self.offline:
            raise OfflineError("not in the cache, and offline", spec=str(spec))
        return found

    async def local(self) -> Catalog:
        """What is known locally, of hubs and registries; sends nothing."""
        read = partial(trio.to_thread.run_sync, lambda: Catalog((), self.store.specs()))
        return await self._memo.recent("local", read)

    async def _commit_spec(self, spec: Spec) -> Spec:
        with naming(spec=str(spec)):
            commit = await self.target(spec)
        if commit is None:
            raise NotFoundError("no such model or revision", spec=str(spec))
        return Spec(spec.namespace, spec.name, commit)

    async def _resolve_in(self, hub: Hub, spec: Spec) -> Version:
        with naming(spec=str(spec)):
            found = await self.outages.send(hub, partial(hub.manifest, spec))
        if found is None:
            raise NotFoundError("no such model or commit", spec=str(spec))
        await trio.to_thread.run_sync(self.store.put_manifest, *found)
        self._memo.drop("local")
        self._found(spec)
        return Version(*found, hub)

    async def _hub_versions(self, hub: Hub, model: str, fresh: bool) -> Versions:
        """The commits that the hub's branches and tags are at, and those that are local."""
        local = (await self.local()).directory(tuple(model.split("/"))).versions
        call = partial(hub.versions, model)
        ask = self.outages.ask if fresh else self.outages.ask_or_kept
        try:
            found = await ask(hub, call) or Versions((), None)
        except OfflineError:  # HF_HUB_OFFLINE keeps the hub from being asked
            if fresh or not local:
                raise
            found = Versions((), None)
        if self.offline and not (found.versions or local):
            raise self.outages.not_found(model)
        if fresh:  # whoever asks for a branch is to hear the same
            for name, commit in {**found.aliases, LATEST: found.latest}.items():
                self._memo.keep(("target", parse_spec(f"{model}@{name}")), commit)
        return replace(found, versions=tuple(sorted({*found.versions, *local})))
