"""cache_list, cache_stats and cache_clean: lists, counts and drops the objects in the cache."""

from __future__ import annotations

from shutil import disk_usage
from typing import Any

import trio

from axonfs.errors import BusyError
from axonfs.names import Spec
from axonfs.service.context import Context, Event
from axonfs.service.queries import first_files
from axonfs.store import Store


async def cache_list(context: Context, request: Event) -> Event:
    """The objects with local bytes, most recently used first."""
    held = {feed.entry.digest for feed in context.fetcher.feeds()}
    return {"objects": await trio.to_thread.run_sync(_objects, context.store, held)}


def _objects(store: Store, held: set[str]) -> list[dict[str, Any]]:
    files = first_files(store)
    pinned = store.pinned_digests()
    infos = [info for info in store.infos() if info.present_bytes or info.quarantined]
    return [
        {
            "digest": info.digest,
            "size": info.size,
            "local": info.present_bytes,
            "accessed": info.accessed,
            "pinned": info.content in pinned,
            "held": info.content in held,
            "quarantined": info.quarantined,
            "file": files.get(info.content, ""),
        }
        for info in sorted(infos, key=lambda info: -info.accessed)
    ]


async def cache_stats(context: Context, request: Event) -> Event:
    """Totals of the cache, in bytes and counts."""
    limit = context.engine.evictor.limit()
    stats = await trio.to_thread.run_sync(_stats, context.store)
    directory = context.settings.cache
    return {
        "stats": {
            "directory": str(directory),
            "used": context.store.usage(),
            "limit": limit,
            "disk_free": disk_usage(directory).free,
            **stats,
        }
    }


def _stats(store: Store) -> dict[str, int]:
    infos, pinned, pins = store.infos(), store.pinned_digests(), store.pins()
    return {
        "objects": len(infos),
        "complete": sum(info.complete for info in infos),
        "quarantined": sum(info.quarantined is not None for info in infos),
        "pins": len(pins),
        "incomplete": sum(not pin.complete for pin in pins),
        "pinned": sum(info.present_bytes for info in infos if info.content in pinned),
        "versions": len(store.specs()),
    }


async def drop(context: Context, digests: list[str]) -> tuple[int, int, int]:
    """Drop objects; return the bytes freed, the objects dropped, and those kept: they are open, or
    were pinned since they were chosen."""
    freed, dropped, kept = await trio.to_thread.run_sync(_drop_all, context.store, digests)
    # The kernel caches sizes on disk: `du` in the mount has to show what is local now.
    context.engine.evicted(dropped)
    return freed, len(dropped), kept


def _drop_all(store: Store, digests: list[str]) -> tuple[int, list[str], int]:
    freed, dropped, kept = 0, [], 0
    for digest in digests:
        if store.peek(digest) is None:
            continue
        try:
            freed += store.drop(digest, unpinned=True)
            dropped.append(digest)
        except BusyError:
            kept += 1
    return freed, dropped, kept


async def cache_clean(context: Context, request: Event) -> Event:
    """Drop every object that is not open and, without `all`, not pinned."""
    store, unpinned = context.store, []
    if request.get("all"):
        unpinned = [pin.spec for pin in await trio.to_thread.run_sync(store.pins)]
        for spec in unpinned:
            await trio.to_thread.run_sync(store.drop_pin, spec)
    infos = await trio.to_thread.run_sync(store.infos)
    pinned = await trio.to_thread.run_sync(store.pinned_digests)
    loose = [info.digest for info in infos if info.content not in pinned]
    freed, dropped, held = await drop(context, loose)
    return _cleaned(freed, dropped, held + len(infos) - len(loose), unpinned)


async def cache_clean_plan(context: Context, request: Event) -> Event:
    """The answer that `cache_clean` would give; drops nothing."""
    store, everything = context.store, bool(request.get("all"))
    infos = await trio.to_thread.run_sync(store.infos)
    pins = await trio.to_thread.run_sync(store.pins) if everything else []
    pinned = set() if everything else await trio.to_thread.run_sync(store.pinned_digests)
    kept = pinned | {feed.entry.digest for feed in context.fetcher.feeds()}
    loose = [info for info in infos if info.content not in kept]
    freed = sum(info.present_bytes for info in loose)
    return _cleaned(freed, len(loose), len(infos) - len(loose), [pin.spec for pin in pins])


def _cleaned(freed: int, dropped: int, kept: int, unpinned: list[Spec]) -> Event:
    return {"freed": freed, "objects": dropped, "kept": kept, "unpinned": list(map(str, unpinned))}
