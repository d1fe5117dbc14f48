"""verify: reads local bytes, compares them with their digests, and repairs bad ones on request."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import trio

from axonfs.catalog.tree import Version
from axonfs.errors import AxonError, NotFoundError
from axonfs.formats.manifest import MANIFEST_NAME, FileEntry
from axonfs.names import Spec
from axonfs.ranges import Range, runs
from axonfs.service.context import Context, Event, resolve_local, wanted_of
from axonfs.service.queries import local_versions
from axonfs.store import Store
from axonfs.versions import Wanted

# Bytes checked per step, so that progress is shown and a cancellation is noticed.
CHECK_BYTES = 64 << 20


async def verify(context: Context, request: Event) -> Event:
    """Read the local bytes of `specs` (without specs, of every version) and check them.

    The check drops bad chunks; with `repair` they are fetched again.
    """
    specs = [await _local_version(context, item) for item in wanted_of(request)]
    targets = await trio.to_thread.run_sync(_local_files, context.store, specs)
    repair = bool(request.get("repair"))
    check = _Check(context, sum(local for _, _, local in targets), repair)
    for spec in dict.fromkeys(specs or [spec for spec, _, _ in targets]):
        await check.signature(spec)
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

    async def signature(self, spec: Spec) -> None:
        """Check that the version is signed by whom it has to be."""
        version = await self._context.tree.unchecked(spec)
        if refusal := await self._context.tree.admission.refusal(version):
            self._add(version, MANIFEST_NAME, version.manifest.digest, 0, refusal.what)

    async def file(self, spec: Spec, entry: FileEntry, local: int) -> None:
        """Check one object and record its bad chunks."""
        context = self._context
        version = await context.tree.unchecked(spec)
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
        self._add(version, entry.path, entry.digest, chunks, error)
        if error is not None:
            await trio.to_thread.run_sync(self._context.store.unprove, entry.digest)

    def _add(
        self, version: Version, path: str, digest: str, chunks: int, error: str | None
    ) -> None:
        self.bad.append(
            {
                "spec": str(version.spec),
                "path": path,
                "sha256": digest,
                "chunks": chunks,
                "repaired": error is None,
                "error": error,
            }
        )
