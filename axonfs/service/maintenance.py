"""unpin, cache_clean and verify: drop local bytes, and check those that stay."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from typing import Any

import trio

from axonfs.catalog.tree import Version
from axonfs.errors import AxonError, BusyError, NotFoundError, UsageError
from axonfs.formats.manifest import FileEntry
from axonfs.names import Spec
from axonfs.ranges import Range, runs
from axonfs.service.context import Context, Event, resolve_local, wanted_of
from axonfs.service.queries import local_versions
from axonfs.store import Store
from axonfs.units import counted
from axonfs.versions import Wanted

# Bytes checked per step, so that progress is shown and a cancellation is noticed.
CHECK_BYTES = 64 << 20


async def unpin(context: Context, request: Event) -> Event:
    """Drop the pins of `specs`, and with `drop` also their bytes that no other pin shares."""
    pinned = {pin.spec for pin in await trio.to_thread.run_sync(context.store.pins)}
    specs = [await _one_version(context, pinned, item) for item in wanted_of(request)]
    answers = []
    for spec in specs:
        was = await trio.to_thread.run_sync(context.store.drop_pin, spec)
        if (
            request.get("drop")
            and not was
            and not await trio.to_thread.run_sync(_local_bytes, context.store, spec)
        ):
            raise NotFoundError("nothing of it is local", spec=str(spec), hint="see axonfs list")
        freed = await _drop_version(context, spec) if request.get("drop") else 0
        answers.append({"spec": str(spec), "was_pinned": was, "freed": freed})
    return {"specs": answers}


async def _one_version(context: Context, pinned: Iterable[Spec], wanted: Wanted) -> Spec:
    """The pinned version that the user named; a name without a version needs a single pin."""
    versions = sorted(spec.version for spec in pinned if spec.model == wanted.spec.model)
    if wanted.exact or (wanted.constraint and versions):
        return await resolve_local(context, wanted, versions)
    if len(versions) > 1:
        raise UsageError(
            "several versions are pinned",
            spec=wanted.spec.model,
            hint=f"name one: {', '.join(versions)}",
        )
    if not versions:
        raise NotFoundError(
            "no version of it is pinned", spec=wanted.spec.model, hint="see axonfs list"
        )
    return replace(wanted.spec, version=versions[0])


def _local_bytes(store: Store, spec: Spec) -> int:
    stored = store.manifest(spec)
    infos = [store.peek(entry.digest) for entry in stored.manifest.files] if stored else []
    return sum(info.present_bytes for info in infos if info is not None)


async def _drop_version(context: Context, spec: Spec) -> int:
    store = context.store
    stored = await trio.to_thread.run_sync(store.manifest, spec)
    if stored is None:
        return 0
    pinned = await trio.to_thread.run_sync(store.pinned_digests)
    digests = {entry.digest for entry in stored.manifest.files} - pinned
    freed, _, kept = await _drop(context, sorted(digests))
    # Keep the manifest while a file of it is open, even one without local bytes or with those of
    # another pin: the next worker needs the manifest to find the file.
    opened = sum(context.engine.fetcher.feed(entry) is not None for entry in stored.manifest.files)
    if kept := max(kept, opened):
        what = f"{counted(kept, 'open file')} stay until evicted"
        await context.note(f"{spec}: {what}")
    else:
        await trio.to_thread.run_sync(store.drop_manifest, spec)
        context.engine.tree.forget(spec)
        context.engine.tree.invalidate()
    return freed


async def _drop(context: Context, digests: list[str]) -> tuple[int, int, int]:
    """Bytes freed, objects dropped, objects kept because they are open."""
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
            freed += store.drop(digest)
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
    loose = [info.digest for info in infos if info.digest not in pinned]
    freed, dropped, held = await _drop(context, loose)
    return _cleaned(freed, dropped, held + len(infos) - len(loose), unpinned)


async def cache_clean_plan(context: Context, request: Event) -> Event:
    """The answer that `cache_clean` would give; drops nothing."""
    store, everything = context.store, bool(request.get("all"))
    infos = await trio.to_thread.run_sync(store.infos)
    pins = await trio.to_thread.run_sync(store.pins) if everything else []
    pinned = set() if everything else await trio.to_thread.run_sync(store.pinned_digests)
    kept = pinned | {feed.entry.digest for feed in context.fetcher.feeds()}
    loose = [info for info in infos if info.digest not in kept]
    freed = sum(info.present_bytes for info in loose)
    return _cleaned(freed, len(loose), len(infos) - len(loose), [pin.spec for pin in pins])


def _cleaned(freed: int, dropped: int, kept: int, unpinned: list[Spec]) -> Event:
    return {"freed": freed, "objects": dropped, "kept": kept, "unpinned": list(map(str, unpinned))}


async def verify(context: Context, request: Event) -> Event:
    """Read the local bytes of `specs` (without specs, of every version) and check them.

    The check drops bad chunks; with `repair` they are fetched again.
    """
    specs = [await _local_version(context, item) for item in wanted_of(request)]
    targets = await trio.to_thread.run_sync(_local_files, context.store, specs)
    repair = bool(request.get("repair"))
    check = _Check(context, sum(local for _, _, local in targets), repair)
    for spec, entry, local in targets:
        await check.file(spec, entry, local)
    await context.events.send(check.event("", ""))
    unverified = sum(entry.unverified for _, entry, _ in targets)
    return {
        "files": len(targets),
        "bytes": check.done,
        "bad": check.bad,
        "unverified": unverified,
    }


async def _local_version(context: Context, wanted: Wanted) -> Spec:
    """The version that the user named, among those with local bytes or a pin."""
    if wanted.exact:
        return await resolve_local(context, wanted, ())
    local = await trio.to_thread.run_sync(local_versions, context.store)
    versions = [item.spec.version for item, _, _ in local if item.spec.model == wanted.spec.model]
    if not versions:
        raise NotFoundError(
            "nothing of it is local", spec=wanted.spec.model, hint="see axonfs list"
        )
    return await resolve_local(context, wanted, versions)


def _local_files(store: Store, specs: list[Spec]) -> list[tuple[Spec, FileEntry, int]]:
    """The objects with local bytes, each with one of the files that have it as content."""
    wanted = specs or [manifest.spec for manifest, _, _ in local_versions(store)]
    found: dict[str, tuple[Spec, FileEntry, int]] = {}
    for spec in wanted:
        stored = store.manifest(spec)
        if stored is None:
            raise NotFoundError("nothing of it is local", spec=str(spec), hint="see axonfs list")
        for entry in stored.manifest.files:
            info = store.peek(entry.digest)
            if info is not None and (info.present_bytes or info.quarantined):
                found.setdefault(entry.digest, (spec, entry, info.present_bytes))
    return list(found.values())


class _Check:
    """The checks of one request."""

    def __init__(self, context: Context, total: int, repair: bool) -> None:
        self._context = context
        self._total = total
        self._repair = repair
        self.done = 0
        self.bad: list[dict[str, Any]] = []

    def event(self, spec: str, path: str) -> Event:
        return {
            "event": "progress",
            "spec": spec or "all",
            "path": path,
            "done": min(self.done, self._total),
            "total": self._total,
        }

    async def file(self, spec: Spec, entry: FileEntry, local: int) -> None:
        """Check one object and record its bad chunks."""
        context = self._context
        version = await context.tree.version(spec)
        info = await trio.to_thread.run_sync(context.store.peek, entry.digest)
        if info is not None and info.quarantined:
            await self._quarantined(version, entry, info.quarantined)
            return
        try:
            bad = await self._check(version, entry)
        except (AxonError, OSError) as exc:  # no chunk table to check it with, or a failing disk
            await self._note_bad(version, entry, 0, str(exc))
            return
        self.done += local
        if bad:
            error = await self._repaired(version, entry, bad)
            await self._note_bad(version, entry, len(bad), error)

    async def _check(self, version: Version, entry: FileEntry) -> list[int]:
        bad: list[int] = []
        with closing(await self._context.fetcher.open(version, entry)) as feed:
            for part in feed.parts(CHECK_BYTES):
                await self._context.events.send(self.event(str(version.spec), entry.path))
                bad += await feed.check(part)
        return bad

    async def _quarantined(self, version: Version, entry: FileEntry, cause: str) -> None:
        error: str | None = cause
        if self._repair:
            await trio.to_thread.run_sync(self._context.store.release_quarantine, entry.digest)
            error = await self._repaired(version, entry, None)
        await self._note_bad(version, entry, 0, error)

    async def _repaired(
        self, version: Version, entry: FileEntry, bad: list[int] | None
    ) -> str | None:
        """Fetch the chunks `bad` (None: all) again; return why not, if it failed or has to wait."""
        if not self._repair:
            return "axonfs verify --repair fetches it again"
        try:
            with closing(await self._context.fetcher.open(version, entry)) as feed:
                everything = [Range(0, feed.object.count)]
                for part in everything if bad is None else runs(bad):
                    await feed.need(part)
        except (AxonError, OSError) as exc:
            return str(exc)
        return None

    async def _note_bad(
        self, version: Version, entry: FileEntry, chunks: int, error: str | None
    ) -> None:
        self.bad.append(
            {
                "spec": str(version.spec),
                "path": entry.path,
                "sha256": entry.digest,
                "chunks": chunks,
                "repaired": error is None,
                "error": error,
            }
        )
        if error is not None:
            await trio.to_thread.run_sync(self._context.store.unprove, entry.digest)
