"""Which models exist, and what a spec resolves to.

Sits between vfs (and the commands) and {store, sources}. Merges the indexes of all registries (the
first registry wins) with the local versions, and resolves names that no index lists. A resolved
version is stored and never requested again, since published versions do not change. Trio thread
only; concurrent callers share one request.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

import trio

from axonfs.catalog.admission import Admission
from axonfs.catalog.catalog import Catalog
from axonfs.catalog.flights import Flights, LateError
from axonfs.catalog.memo import MIN_AGE, Memo
from axonfs.catalog.outages import Outages, kept
from axonfs.catalog.resolved import Version as Version
from axonfs.errors import AxonError, NotFoundError, OfflineError, naming
from axonfs.formats.listing import Listing, Versions
from axonfs.names import LATEST, Spec, hub_of, is_fixed, parse_spec
from axonfs.settings.signers import SignatureRules
from axonfs.sources import Hub, Source
from axonfs.store import Store

# Seconds after which the next registry is asked too if one is silent.
HEAD_START = 5.0
# Seconds for which the first listing waits for the sources, if stored listings can be used instead.
PATIENCE = 5.0
# Manifests that are cached in memory; the store has all.
MEMO_MANIFESTS = 256

T = TypeVar("T")


class Tree:
    """The names of all sources.

    Args:
        registries: in order of preference.
        hubs: by name (`names.hub_of`); registries are not asked about the models of hubs.
        nursery: runs the requests, which outlive the task that needed them.
        head_start: seconds for which a silent registry delays the answer of the next one.
        found: called with a hub's version that is known from then on.
        rules: who has to have signed which versions.
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
        rules: SignatureRules | None = None,
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
        self.admission = Admission(
            rules or SignatureRules(),
            self.registries,
            store,
            self._flights,
            self.outages,
            offline=offline,
        )
        self._dropped = -math.inf  # when the catalog was dropped last
        self._patience = PATIENCE
        self._listed: dict[str, list[Listing]] = {}
        self._versions: dict[Spec, Version] = {}

    def request_catalog(self) -> None:
        """Fetch the catalog in the background unless it is known."""
        if not self.has_catalog():
            self._memo.ask_soon("catalog", self._list_all)

    def hub(self, model: str) -> Hub | None:
        """The hub that alone has `model`; None if registries are asked about it."""
        return self.hubs.get(hub_of(model))

    def has_catalog(self) -> bool:
        """Whether the catalog is known, so that `catalog` does not wait."""
        return "catalog" in self._memo

    def invalidate(self) -> None:
        """Make all cached answers stale, for example after a pin added a version."""
        self._memo.invalidate()

    def _drop_catalog(self) -> None:
        """A source answers again: drop the catalog, which may lack its models.

        At most once in MIN_AGE, since a source may answer often while only its index fails.
        """
        if (now := trio.current_time()) - self._dropped >= MIN_AGE:
            self._dropped = now
            self._memo.drop("catalog")

    async def catalog(self, *, fresh: bool = False) -> Catalog:
        """All listed and local versions.

        Args:
            fresh: wait for the sources unless they answered a moment ago. Otherwise wait for the
                first answer only a few seconds, and then use the stored listings of earlier runs.

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
        """Wait until each registry has listed its models or failed.

        Also drops the cached versions of `model`.
        """
        for source in self.registries:
            if self.outages.of(source).listing:
                with suppress(AxonError):
                    await self._flights.join(("list", source), partial(self._list, source))
        self._memo.drop(("versions", model))

    async def _earlier(self) -> Catalog:
        """The stored listings of earlier runs, and the local versions."""
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
            if listings == self._listings():  # else a slow source has listed its models meanwhile
                return catalog

    def _listings(self) -> list[Listing]:
        """The listings of the registries, in their order, without the models of hubs."""
        listed = [item for source in self.registries for item in self._listed.get(source.url, [])]
        return [item for item in listed if not self.hub(item.spec.model)]

    async def _list(self, source: Source) -> None:
        listings: list[Listing] | None = None
        with self.outages.listing(source):
            try:
                listings = await self.outages.ask(source, source.listings)
                self.outages.listed(source, indexed=listings is not None)
            except AxonError as exc:
                self.outages.not_listed(source, exc)
                listings = self._listed.get(source.url) or await kept(source.listings(offline=True))
                raise
            finally:
                if self._listed.get(source.url) != listings:
                    self._memo.drop("catalog")  # it lacks this source, which was slow
                self._listed[source.url] = listings or []

    async def version(self, spec: Spec) -> Version:
        """As `unchecked`, if the version may be read.

        Raises:
            UntrustedError: it is not signed by whom it has to be.
        """
        found = await self.unchecked(spec)
        await self.admission.admit(found)
        return found

    async def unchecked(self, spec: Spec) -> Version:
        """The version that `spec` names, whoever signed it; `latest` is resolved.

        Raises:
            NotFoundError: no source has it, and all of them answered.
            OfflineError: it is not known locally, and requests are forbidden.
            AxonError: a source that might have it did not answer.
        """
        if self.hub(spec.model):
            spec = await self._commit_spec(spec)
        elif spec.version == LATEST:
            spec = await self._latest_spec(spec)
        known = self._versions.get(spec)
        if known is None:
            known = await self._flights.join(spec, lambda: self._resolve(spec))
            self._remember(spec, known)
        return known

    async def known(self, spec: Spec) -> Version | None:
        """The version if its manifest is local, whoever signed it; sends nothing."""
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
        """Drop `spec` from memory, so that the next caller resolves it again."""
        self._versions.pop(spec, None)

    async def _resolve(self, spec: Spec) -> Version:
        if (known := await self.known(spec)) is not None:
            return known
        if self.offline:
            raise OfflineError("not in the cache, and offline", spec=str(spec))
        if hub := self.hub(spec.model):
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
        """The answer or error of each registry, in their order; silent ones come last."""
        return aclosing(self._flights.in_turn(key, self.registries, call, self.head_start))

    def source_of(self, spec: Spec, base: str) -> Source | None:
        """The source with the objects below `base`; by default the first registry."""
        if hub := self.hub(spec.model):
            return hub
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
        """All listed and local versions of `namespace/name`, and which is `latest`.

        Args:
            fresh: wait for the sources unless they answered a moment ago.

        Raises:
            AxonError: a source did not answer and no version is known.
        """
        ask = partial(self._ask_versions, model, fresh)
        return await self._memo.recent(("versions", model), ask, fresh=fresh)

    def cached_versions(self, model: str) -> Versions | None:
        """The last answer of `versions`, None without one; waits for no source."""
        return self._memo.served(("versions", model), partial(self._ask_versions, model, False))

    async def _ask_versions(self, model: str, fresh: bool) -> Versions:
        if hub := self.hub(model):
            return await self._hub_versions(hub, model, fresh)
        return await self._all_versions(model, fresh)

    async def _all_versions(self, model: str, fresh: bool) -> Versions:
        with naming(spec=model):
            directory = (await self.catalog()).directory(tuple(model.split("/")))
        names, latest, failure = set(directory.versions), None, None
        yanked = set[str]()
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
                    yanked.update(answer.yanked)
                    latest = latest or answer.latest
                if names and left <= 0:
                    break  # each registry has answered or is late
        if not names and (failure or self.offline):
            raise failure.located(spec=model) if failure else self.outages.not_found(model)
        return Versions.of(names, latest, yanked)

    async def target(self, spec: Spec) -> str | None:
        """The commit of a branch or tag of a hub's model; None if it does not exist.

        A stale answer is served while it is refreshed.

        Raises:
            OfflineError: it is not known locally, and requests are forbidden.
        """
        if is_fixed(spec):
            return spec.version
        hub = self.hubs[hub_of(spec.model)]
        ask = partial(self.outages.ask_or_kept, hub, partial(hub.alias, spec))
        found = await self._memo.recent(("target", spec), ask)
        if found is None and self.offline:
            raise OfflineError("not in the cache, and offline", spec=str(spec))
        return found

    async def models_of(self, name: str, *, wait: bool) -> list[str]:
        """The models that a hub lists, or listed a while ago; empty if it lists none."""
        key, ask = (
            ("models", name),
            partial(self.outages.send, self.hubs[name], self.hubs[name].models),
        )
        if self.offline or not wait:
            return self._memo.served(key, ask) or []
        with suppress(AxonError):
            return await self._memo.recent(key, ask) or []
        return []

    async def local(self) -> Catalog:
        """The local versions of hubs and registries; sends nothing."""
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
        """The commits of the hub's branches and tags, and the local ones."""
        local = (await self.local()).directory(tuple(model.split("/"))).versions
        call = partial(hub.versions, model)
        ask = self.outages.ask if fresh else self.outages.ask_or_kept
        try:
            found = await ask(hub, call) or Versions((), None)
        except OfflineError:  # HF_HUB_OFFLINE forbids requests to the hub
            if fresh or not local:
                raise
            found = Versions((), None)
        if self.offline and not (found.versions or local):
            raise self.outages.not_found(model)
        if fresh:  # branches resolve to the same commits from now on
            for name, commit in {**found.aliases, LATEST: found.latest}.items():
                self._memo.keep(("target", parse_spec(f"{model}@{name}")), commit)
        return replace(found, versions=tuple(sorted({*found.versions, *local})))
