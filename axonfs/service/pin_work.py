"""The fetch of one pin: which bytes of its objects are missing, and its progress.

Trio thread only, except for `begin`, which blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio

from axonfs.ahead.bulk import Bulk, turned
from axonfs.errors import AxonError
from axonfs.fetch import Feed
from axonfs.formats.manifest import FileEntry
from axonfs.names import Spec
from axonfs.ranges import Range
from axonfs.service.context import Context, Event
from axonfs.service.selection import Selection, missing_bytes

PROGRESS_PAUSE = 0.1


def begin(context: Context, selection: Selection) -> Bulk:
    """Measure the local bytes of the selection's objects for `fetch`; `close` the result."""
    local = {
        entry.digest: entry.size - missing_bytes(entry, context.store.peek(entry.digest))
        for entry in selection.objects
    }
    failed = partial(_fail, selection.version.spec)
    begin = context.fetcher.begin_at(selection.version)
    return Bulk(context.fetcher, selection.version, local, parts=_parts, failed=failed, begin=begin)


async def fetch(context: Context, selection: Selection, bulk: Bulk) -> None:
    """Fetch every chunk of the selection.

    Raises:
        AxonError: a file cannot be fetched; the error names it.
    """
    with context.pinning.noting(selection, bulk):
        await _fetch(context, selection, bulk)
    await context.events.send(progress(selection, bulk))


async def _fetch(context: Context, selection: Selection, bulk: Bulk) -> None:
    async with trio.open_nursery() as ticking:
        ticking.start_soon(_tick, context, selection, bulk)
        # Twice the number of streams, so that none is idle while the end of a part is written.
        await bulk.fetch(turned(selection.objects, bulk.begin), width=2 * context.settings.streams)
        ticking.cancel_scope.cancel()


def progress(selection: Selection, bulk: Bulk) -> Event:
    """A progress event, in bytes."""
    return {
        "event": "progress",
        "spec": str(selection.version.spec),
        "path": bulk.path,
        "done": bulk.local,
        "total": selection.size,
        "fetched": bulk.fetched,
    }


async def _tick(context: Context, selection: Selection, bulk: Bulk) -> None:
    while True:
        await context.events.send(progress(selection, bulk))
        await trio.sleep(PROGRESS_PAUSE)


def _parts(feed: Feed) -> Sequence[Range]:
    """All parts of an object unless it is complete, so that local bytes are checked too."""
    whole = feed.object.present(0, feed.object.count) and feed.allowed
    return () if whole else feed.parts()


def _fail(spec: Spec, entry: FileEntry, exc: AxonError | OSError) -> None:
    raise exc.located(spec=str(spec), path=entry.path) if isinstance(exc, AxonError) else exc
