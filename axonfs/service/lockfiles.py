"""lock and pin_lock: write a lock file of pinned versions, and pin exactly those elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

import trio

from axonfs.catalog.tree import Version
from axonfs.errors import ChangedError, MalformedError, NotFoundError
from axonfs.formats.lockfile import Locked, parse_lock, render_lock
from axonfs.formats.manifest import SNAPSHOT, Manifest, render_manifest
from axonfs.names import Spec
from axonfs.service.context import Context, Event, resolve, wanted_of
from axonfs.service.pins import keep
from axonfs.service.selection import Selection, select
from axonfs.store import Store
from axonfs.units import counted

SHOWN = 16  # hex digits of a digest in messages


async def lock(context: Context, request: Event) -> Event:
    """The lock file of `specs`; without specs, of every pin."""
    wanted = wanted_of(request)
    if wanted:
        specs = dict.fromkeys([await resolve(context, item) for item in wanted])
        versions = [await context.tree.version(spec) for spec in specs]
        selections = [select(version, [], []) for version in versions]
    else:
        selections = await trio.to_thread.run_sync(_pinned, context.store)
    for selection in selections:
        if count := sum(entry.unverified for entry in selection.entries):
            what = f"{counted(count, 'file')} cannot be verified, so their bytes may differ later"
            await context.note(f"{selection.version.spec}: {what}")
    raw = render_lock(map(_locked, selections))
    total = sum(selection.size for selection in selections)
    return {"lock": raw.decode(), "versions": len(selections), "size": total}


def _pinned(store: Store) -> list[Selection]:
    found = []
    for pin in store.pins():
        stored = store.manifest(pin.spec)
        if stored is None or stored.manifest.digest != pin.manifest_digest:
            raise NotFoundError(
                "its manifest is not local", spec=str(pin.spec), hint="pin it again"
            )
        version = Version(stored.manifest, stored.base, None)
        files = (entry for entry in stored.manifest.files if entry.digest in pin.files)
        found.append(Selection(version, tuple(files)))
    return found


def _locked(selection: Selection) -> Locked:
    manifest, entries = selection.version.manifest, selection.entries
    paths = tuple(entry.path for entry in entries) if len(entries) < len(manifest.files) else None
    return Locked(
        manifest.spec,
        locked_digest(manifest),
        selection.version.base,
        len(entries),
        selection.size,
        paths,
    )


def locked_digest(manifest: Manifest) -> str:
    """The digest of a manifest in a lock file.

    A snapshot counts as one without chunk tables. Which of them an OCI registry keeps for a model
    may change, and differs from copies of it.
    """
    if manifest.kind != SNAPSHOT or not any(entry.chunks for entry in manifest.files):
        return manifest.digest
    files = tuple(replace(entry, chunks=None) for entry in manifest.files)
    return hashlib.sha256(render_manifest(replace(manifest, files=files))).hexdigest()


async def pin_lock(context: Context, request: Event) -> Event:
    """Pin the versions in the lock file `lock`; if any manifest differs, pin none."""
    versions = parse_lock(str(request.get("lock", "")).encode())
    selections = [await _selected(context, locked) for locked in versions]
    return {"pins": await keep(context, selections)}


async def _selected(context: Context, locked: Locked) -> Selection:
    try:
        version = await context.tree.version(locked.spec)
    except NotFoundError as exc:
        raise NotFoundError(
            "no registry has it",
            spec=str(locked.spec),
            hint=f"it was locked from {locked.source}; axonfs registry add adds that registry",
        ) from exc
    digest = locked_digest(version.manifest)
    if digest != locked.manifest:
        raise ChangedError(
            f"its manifest has the digest {digest[:SHOWN]}…, not {locked.manifest[:SHOWN]}… as in"
            " the lock file; nothing was pinned",
            spec=str(locked.spec),
            source=version.base,
            hint="axonfs lock makes a new lock file",
        )
    selection = select(version, [], [])
    return selection if locked.paths is None else _only(selection, locked.paths, locked.spec)


def _only(selection: Selection, paths: Iterable[str], spec: Spec) -> Selection:
    wanted = set(paths)
    entries = tuple(entry for entry in selection.entries if entry.path in wanted)
    if missing := wanted - {entry.path for entry in entries}:
        raise MalformedError(
            "the lock file names a file that the version lacks", spec=str(spec), path=min(missing)
        )
    return replace(selection, entries=entries)
