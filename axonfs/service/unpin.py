"""unpin: drops pins, and on request the bytes of their versions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import trio

from axonfs.errors import NotFoundError, UsageError
from axonfs.names import Spec
from axonfs.service.cache import drop
from axonfs.service.context import Context, Event, resolve_local, wanted_of
from axonfs.store import Store
from axonfs.units import counted
from axonfs.versions import Wanted


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
    freed, _, kept = await drop(context, sorted(digests))
    if kept := await forget_version(context, spec, kept):
        await context.note(f"{spec}: {counted(kept, 'open file')} stay until evicted")
    return freed


async def forget_version(context: Context, spec: Spec, kept: int) -> int:
    """Forget a version whose bytes were dropped, except `kept` objects that are open; returns how
    many of its files are open.

    Its manifest stays while a file of it is open, even one without local bytes or with those of
    another version: the next worker needs the manifest to find the file.
    """
    stored = await trio.to_thread.run_sync(context.store.manifest, spec)
    entries = stored.manifest.files if stored else ()
    opened = sum(context.engine.fetcher.feed(entry) is not None for entry in entries)
    if not max(kept, opened):
        await trio.to_thread.run_sync(context.store.drop_manifest, spec)
        context.engine.tree.forget(spec)
        context.engine.tree.invalidate()
    return max(kept, opened)
