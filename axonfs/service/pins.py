"""pin, pin_check and update: versions that are whole, are kept, and prove it.

A pin is written incomplete before the first byte is fetched, so that nothing of it is evicted
while it grows or after it was interrupted; it is complete only when every object is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from axonfs.errors import AxonError, NotFoundError, UnavailableError, UsageError
from axonfs.fetch import Feed
from axonfs.manifest import FileEntry
from axonfs.names import LATEST, Spec, newest, parse_spec
from axonfs.ranges import Range
from axonfs.service.context import Context, Event, specs_of
from axonfs.service.selection import Selection, is_whole, measure, missing_bytes, select
from axonfs.service.work import Work
from axonfs.store import Pin, Store
from axonfs.tree import Version
from axonfs.units import size

PROGRESS_PAUSE = 0.1


async def pin(context: Context, request: Event) -> Event:
    """Fetch what is missing of `specs` and keep it."""
    include, exclude = _globs(request, "include"), _globs(request, "exclude")
    specs = specs_of(request)
    if not specs:
        raise UsageError("pin needs a spec")
    selections = [select(await context.tree.version(spec), include, exclude) for spec in specs]
    return {"pins": await keep(context, selections)}


def _globs(request: Event, key: str) -> list[str]:
    return [str(glob) for glob in request.get(key) or ()]


async def keep(context: Context, selections: Sequence[Selection]) -> list[dict[str, Any]]:
    """Pin the selections, one after the other; there is room for all or none is begun."""
    await _check_room(context, selections)
    return [await _keep_one(context, selection) for selection in selections]


async def _check_room(context: Context, selections: Sequence[Selection]) -> None:
    open_digests = {feed.entry.digest for feed in context.fetcher.feeds()}
    disk = os.statvfs(context.settings.cache)
    free = disk.f_bavail * disk.f_frsize
    limit = context.engine.evictor.limit()
    room = await trio.to_thread.run_sync(
        measure, context.store, selections, open_digests, limit, free
    )
    room.check(", ".join(str(selection.version.spec) for selection in selections))


async def _keep_one(context: Context, selection: Selection) -> dict[str, Any]:
    store, spec = context.store, selection.version.spec
    receipt = await trio.to_thread.run_sync(_receipt, store, selection)
    with closing(Work(context.fetcher, store, selection)) as work:
        if work.missing:
            await trio.to_thread.run_sync(store.put_pin, receipt)
        await _fetch(context, work)
    if gone := await trio.to_thread.run_sync(_incomplete, store, selection):
        raise AxonError(
            "was dropped while it was being pinned", spec=str(spec), path=gone, hint="pin it again"
        )
    await trio.to_thread.run_sync(_settle, store, receipt)
    return {
        "spec": str(spec),
        "manifest": receipt.manifest_digest,
        "files": len(selection.entries),
        "total": selection.size,
        "fetched": work.fetched,
        "path": context.path_of(spec),
    }


async def _fetch(context: Context, work: Work) -> None:
    """Have every chunk of the work local and usable."""
    async with trio.open_nursery() as ticking:
        ticking.start_soon(_tick, context, work)
        parts = work.parts()
        async with trio.open_nursery() as nursery:
            # Twice the streams, so that none idles while the end of a part settles.
            for _ in range(2 * context.settings.streams):
                nursery.start_soon(_fetch_parts, work, parts)
        ticking.cancel_scope.cancel()
    await context.events.send(work.event())


async def _tick(context: Context, work: Work) -> None:
    while True:
        await context.events.send(work.event())
        await trio.sleep(PROGRESS_PAUSE)


async def _fetch_parts(work: Work, parts: Iterator[tuple[Feed, Range]]) -> None:
    for feed, part in parts:
        try:
            await feed.need(part, demand=False)
        except AxonError as exc:
            raise exc.located(spec=work.spec, path=feed.entry.path) from exc
        work.ended(feed)
        await trio.lowlevel.checkpoint()


def _receipt(store: Store, selection: Selection) -> Pin:
    """The pin to be: files pinned before stay in it, so `--include` adds and never takes away."""
    manifest = selection.version.manifest
    before = next((pin for pin in store.pins() if pin.spec == manifest.spec), None)
    kept = before.files if before and before.manifest_digest == manifest.digest else ()
    files = tuple(dict.fromkeys((*kept, *selection.digests)))
    return Pin(manifest.spec, manifest.digest, files, time.time(), False)


def _settle(store: Store, receipt: Pin) -> None:
    """Write the receipt; complete only if files that were pinned earlier are whole as well."""
    whole = all(is_whole(store.peek(digest)) for digest in receipt.files)
    store.put_pin(replace(receipt, pinned_at=time.time(), complete=whole))
    store.sync()


def _incomplete(store: Store, selection: Selection) -> str | None:
    """The path of a file that is not whole."""
    for entry in selection.objects:
        if entry.size and not is_whole(store.peek(entry.digest)):
            return entry.path
    return None


async def pin_check(context: Context, request: Event) -> Event:
    """Prove from the cache alone that `specs` (every pin if there are none) are whole."""
    include, exclude = _globs(request, "include"), _globs(request, "exclude")
    checked = await trio.to_thread.run_sync(
        _check_pins, context, specs_of(request), include, exclude
    )
    return {"pins": checked}


def _check_pins(
    context: Context, specs: list[Spec], include: list[str], exclude: list[str]
) -> list[dict[str, Any]]:
    pins = {pin.spec: pin for pin in context.store.pins()}
    wanted = [pinned_version(pins, spec) for spec in specs] or sorted(pins)
    return [_check_pin(context, spec, pins.get(spec), include, exclude) for spec in wanted]


def pinned_version(pins: Iterable[Spec], spec: Spec) -> Spec:
    """`spec`, or the newest pinned version of its model where it says `latest`."""
    if spec.version != LATEST:
        return spec
    version = newest([pin.version for pin in pins if pin.model == spec.model])
    return Spec(spec.namespace, spec.name, version or LATEST)


def _check_pin(
    context: Context, spec: Spec, pin: Pin | None, include: list[str], exclude: list[str]
) -> dict[str, Any]:
    stored = context.store.manifest(spec)
    answer = {"spec": str(spec), "files": 0, "total": 0, "whole": False}
    if pin is None:
        return {**answer, "missing": [{"path": "", "why": "is not pinned"}]}
    if stored is None or stored.manifest.digest != pin.manifest_digest:
        return {**answer, "missing": [{"path": "", "why": "its manifest is not local"}]}
    version = Version(stored.manifest, stored.base, None)
    selection = select(version, include, exclude)
    # Without globs the pin's own files are meant: it may have been of a part of the version.
    chosen = [item for item in selection.entries if include or item.digest in pin.files]
    missing = [
        {"path": entry.path, "why": why}
        for entry in chosen
        if (why := _why_missing(context, entry, pin)) is not None
    ]
    answer |= {"files": len(chosen), "total": sum(entry.size for entry in chosen)}
    return {**answer, "whole": not missing, "missing": missing}


def _why_missing(context: Context, entry: FileEntry, pin: Pin) -> str | None:
    """What a file lacks, None if it is whole."""
    if entry.digest not in pin.files:
        return "is not part of the pin"
    if entry.size == 0:
        return None
    info = context.store.peek(entry.digest)
    if info is None:
        return f"all of its {size(entry.size)} are missing"
    if info.quarantined:
        return f"is quarantined: {info.quarantined}"
    if not info.complete:
        return f"{size(missing_bytes(entry, info))} of {size(entry.size)} are missing"
    try:
        length = backing_file(context.settings.cache, entry.digest).stat().st_size
    except OSError as exc:
        return f"its backing file cannot be read: {exc.strerror}"
    return None if length == entry.size else "its backing file has the wrong size"


def backing_file(cache: Path, digest: str) -> Path:
    """Where the cache keeps an object (the layout is fixed)."""
    return cache / "objects" / digest[:2] / digest


async def update(context: Context, request: Event) -> Event:
    """Pin the newest version of `spec`'s model, or of every pinned model.

    A pin of some files of a version becomes one of the files with the same paths.
    """
    pins = await trio.to_thread.run_sync(context.store.pins)
    models = {pin.spec.model for pin in pins}
    if request.get("spec"):
        models = {parse_spec(str(request["spec"])).model}
    await _ask_again(context)
    changes = [await _update(context, pins, parse_spec(model)) for model in sorted(models)]
    return {"changes": changes}


async def _ask_again(context: Context) -> None:
    """Refresh the index; what could not be asked is said, since `newest` may not be true then."""
    context.tree.invalidate()
    await context.tree.catalog(fresh=True)
    states = context.tree.states.values()
    errors = [state.error for state in states if state.error]
    if len(errors) == len(states):
        what = errors[0] if errors else "no registry is configured"
        raise UnavailableError(what, hint="nothing was updated")
    for error in errors:
        await context.note(error)


async def _update(context: Context, pins: list[Pin], latest: Spec) -> dict[str, Any]:
    old = {pin.spec: pin for pin in pins if pin.spec.model == latest.model}
    found = await context.tree.versions(latest.model, fresh=True)
    version = await context.tree.version(replace(latest, version=found.latest or LATEST))
    before = pinned_version(old, latest)
    if version.spec not in old:
        paths = await trio.to_thread.run_sync(_pinned_paths, context.store, old.get(before))
        selection = select(version, [], [])
        entries = tuple(item for item in selection.entries if paths is None or item.path in paths)
        if not entries:
            raise NotFoundError("has none of the files that are pinned", spec=str(version.spec))
        await keep(context, [replace(selection, entries=entries)])
    return {
        "model": latest.model,
        "old": before.version if before in old else None,
        "new": version.spec.version,
    }


def _pinned_paths(store: Store, pin: Pin | None) -> set[str] | None:
    """The paths that a partial pin is of; None if it is of the whole version."""
    stored = store.manifest(pin.spec) if pin else None
    if pin is None or stored is None:
        return None
    files = stored.manifest.files
    paths = {entry.path for entry in files if entry.digest in pin.files}
    return None if len(paths) == len(files) else paths
