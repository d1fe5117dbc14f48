"""The one module that knows the concrete parts and puts them together.

A mount uses the same engine as a command that works without one: a store, the sources, the tree
over both, and the fetcher. Trio thread only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice

import trio

from axonfs.ahead.prefetcher import Prefetcher
from axonfs.catalog.tree import HEAD_START, Tree
from axonfs.errors import AxonError, ShortageError, shortages
from axonfs.fetch import Bandwidth, Fetcher
from axonfs.http_client import Bodies, Documents, Limits, Lookups, Pauses, Trust
from axonfs.names import Spec
from axonfs.settings.settings import Settings
from axonfs.settings.signers import SignatureRules
from axonfs.sources import (
    Copies,
    Hub,
    HubCache,
    RegistrySigners,
    RegistrySource,
    Source,
    configured_hubs,
    hub_tokens,
    oci_registries,
    site_caches,
)
from axonfs.store import DISK_FAULTS, Store
from axonfs.upkeep.evictor import Evictor
from axonfs.upkeep.scrub import Scrub

# How often the index is flushed to the disk, in seconds; a crash of the machine loses that much.
SYNC_INTERVAL = 5.0
# Changed objects, and changed versions, that are kept for a watcher to come.
MAX_KEPT = 1000


class Changes:
    """Objects and versions that changed, so that a mount can invalidate their attributes.

    While there is no watcher, the first MAX_KEPT objects and versions are kept: a mount watches
    within seconds, a command without a mount never does.
    """

    def __init__(self) -> None:
        self._objects = set[str]()
        self._versions = set[Spec]()
        self._watcher: Callable[[set[str], set[Spec]], None] | None = None

    def objects(self, digests: Iterable[str]) -> None:
        """These objects lost local bytes, or a fetch of them begins."""
        room = None if self._watcher else MAX_KEPT - len(self._objects)
        self._objects.update(islice(digests, room))
        self._tell()

    def version(self, spec: Spec) -> None:
        """A version was found, which directories list from now on."""
        if self._watcher or len(self._versions) < MAX_KEPT:
            self._versions.add(spec)
        self._tell()

    @contextmanager
    def watched(self, watcher: Callable[[set[str], set[Spec]], None]) -> Iterator[None]:
        """Call `watcher` with the digests and versions that were kept, and then with each change at
        once, until the block is left. There can be one watcher at a time."""
        self._watcher = watcher
        self._tell()
        try:
            yield
        finally:
            self._watcher = None

    def _tell(self) -> None:
        if self._watcher is not None:
            objects, versions = self._objects, self._versions
            self._objects, self._versions = set(), set()
            self._watcher(objects, versions)


@dataclass(frozen=True, slots=True)
class Engine:
    """The parts of one process."""

    settings: Settings
    store: Store
    tree: Tree
    fetcher: Fetcher
    evictor: Evictor
    prefetcher: Prefetcher
    scrub: Scrub
    documents: Documents
    bodies: Bodies
    signers: RegistrySigners
    copies: Copies
    nursery: trio.Nursery
    hub_tokens: Mapping[str, str] = field(repr=False)
    changes: Changes

    def tree_for(self, registries: tuple[str, ...], tokens: Mapping[str, str]) -> Tree:
        """The tree for one request, which may name other registries or bring other tokens.

        Args:
            tokens: by the URL of a registry or the name of a hub; "" stands for the first registry.
        """
        registries = registries or self.settings.registries
        given = dict(tokens)
        if (first := given.pop("", None)) is not None and registries:
            given.setdefault(registries[0], first)
        settings = replace(self.settings, tokens={**self.settings.tokens, **given})
        # The hubs' own clients may have logged in since this process started.
        now = hub_tokens(settings, given)
        same = now == self.hub_tokens and all(
            settings.token(url) == self.settings.token(url) for url in registries
        )
        if same and registries == self.settings.registries:
            return self.tree
        self.signers.learn(registries, settings.tokens)
        self.copies.learn(registries)
        sources = _sources(settings, registries, self.documents, self.store)
        clients = self.documents, self.bodies
        hubs = _hubs(settings, registries, clients, self.store, now)
        return _tree(settings, sources, self.store, self.nursery, hubs, self._found_elsewhere)

    def _found_elsewhere(self, spec: Spec) -> None:
        """Have the mount list a version that the tree of one request found."""
        self.tree.invalidate()
        self.changes.version(spec)

    def evicted(self, digests: list[str]) -> None:
        """Tell the other parts of objects that lost local bytes."""
        self.prefetcher.evicted(digests)
        self.changes.objects(digests)


@asynccontextmanager
async def open_engine(
    settings: Settings, *, owner: bool = True, lock: int | None = None
) -> AsyncIterator[Engine]:
    """Build the parts, and run them until the block is left.

    Args:
        owner: take the cache's lock, so that bytes can be fetched and evicted.
        lock: that lock's descriptor, if another process took it for this one.

    Raises:
        BusyError: another process owns the cache; the message names its pid.
        AxonError: what the block raises, without an exception group.
    """
    failure: AxonError | None = None
    async with AsyncExitStack() as stack:
        store = stack.enter_context(closing(Store.open(settings.cache, owner=owner, lock=lock)))
        limits = Limits.within(settings.deadline, settings.retries)
        trust = Trust(settings.ca_bundle)
        signers = RegistrySigners(settings.ca_bundle)
        by_scheme = signers.by_scheme
        caches = site_caches(settings)
        lookups = Lookups(caches)
        if not settings.offline:
            await lookups.once()
        pauses = Pauses()
        documents = await stack.enter_async_context(
            Documents(limits, trust, signers=by_scheme, caches=caches, pauses=pauses)
        )
        bodies = stack.enter_context(
            Bodies(limits, trust, signers=by_scheme, caches=caches, pauses=pauses)
        )
        nursery = await stack.enter_async_context(trio.open_nursery())
        if not settings.offline:
            nursery.start_soon(lookups.run)
        engine = _compose(settings, store, documents, bodies, limits, signers, nursery)
        if owner:
            nursery.start_soon(engine.evictor.run, engine.fetcher, engine.evicted)
            nursery.start_soon(_sync_regularly, store)
            nursery.start_soon(_sweep, store)
        try:
            yield engine
        except AxonError as exc:
            failure = exc
        finally:
            engine.fetcher.stop()
            nursery.cancel_scope.cancel()
    if failure:
        raise failure


def _compose(
    settings: Settings,
    store: Store,
    documents: Documents,
    bodies: Bodies,
    limits: Limits,
    signers: RegistrySigners,
    nursery: trio.Nursery,
) -> Engine:
    changes = Changes()
    signers.learn(settings.registries, settings.tokens)
    copies = Copies(HubCache.configured() if "hf" in settings.sources else None)
    copies.learn(settings.registries)
    sources = _sources(settings, settings.registries, documents, store)
    evictor = Evictor(store, settings.cache, settings.cache_limits)
    tokens = hub_tokens(settings)
    hubs = _hubs(settings, settings.registries, (documents, bodies), store, tokens)
    tree = _tree(settings, sources, store, nursery, hubs, changes.version)
    fetcher = Fetcher(
        store,
        bodies,
        nursery,
        streams=settings.streams,
        bandwidth=Bandwidth(settings.bandwidth),
        limits=limits,
        offline=settings.offline,
        landed=evictor.landed,
        began=changes.objects,
        blobs=copies,
    )
    prefetcher = Prefetcher(
        fetcher, evictor, nursery, mode=settings.prefetch, width=settings.streams
    )
    scrub = Scrub(store, tree, fetcher, settings.scrub)
    return Engine(
        settings=settings,
        store=store,
        tree=tree,
        fetcher=fetcher,
        evictor=evictor,
        prefetcher=prefetcher,
        scrub=scrub,
        documents=documents,
        bodies=bodies,
        signers=signers,
        copies=copies,
        nursery=nursery,
        hub_tokens=tokens,
        changes=changes,
    )


def _tree(
    settings: Settings,
    sources: list[Source],
    store: Store,
    nursery: trio.Nursery,
    hubs: Mapping[str, Hub],
    found: Callable[[Spec], None],
) -> Tree:
    return Tree(
        sources,
        store,
        nursery,
        offline=settings.offline,
        hubs=hubs,
        # With a short deadline the next registry must be asked long before its end.
        head_start=min(HEAD_START, settings.deadline / 4),
        found=found,
        rules=SignatureRules.of(settings.require_signature),
    )


def _sources(
    settings: Settings, registries: tuple[str, ...], documents: Documents, store: Store
) -> list[Source]:
    return [
        RegistrySource(
            url,
            documents,
            token=settings.token(url),
            cache=store,
            allow_unverified=url in settings.allow_unverified,
        )
        for url in registries
        if not url.startswith("oci:")
    ]


def _hubs(
    settings: Settings,
    registries: tuple[str, ...],
    clients: tuple[Documents, Bodies],
    store: Store,
    tokens: Mapping[str, str],
) -> dict[str, Hub]:
    """The hubs and the OCI registries, by `names.hub_of`."""
    documents, bodies = clients
    return {
        **configured_hubs(settings, documents, store, tokens),
        **oci_registries(registries, documents, store, bodies),
    }


async def _sweep(store: Store) -> None:
    try:
        with shortages():
            await trio.to_thread.run_sync(store.sweep)
    except (ShortageError, *DISK_FAULTS) as exc:
        store.health.failed(exc)


async def _sync_regularly(store: Store) -> None:
    while True:
        await trio.sleep(SYNC_INTERVAL)
        # A probe tells of the disk's faults itself.
        work = store.probe if store.health.fault else store.sync
        try:
            with shortages():
                await trio.to_thread.run_sync(work)
        except (ShortageError, *DISK_FAULTS) as exc:
            store.health.failed(exc)
