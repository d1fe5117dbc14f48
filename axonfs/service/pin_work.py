"""The fetch of one pin: what of its objects is missing, and progress for the command that waits.

Trio thread only, but for `begin`, which blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio

from axonfs.ahead.bulk import Bulk
from axonfs.errors import AxonError
from axonfs.fetch import Feed
from axonfs.formats.manifest import FileEntry
from axonfs.names import Spec
from axonfs.ranges import Range
from axonfs.service.context import Context, Event
from axonfs.service.selection import Selection, missing_bytes

PROGRESS_PAUSE = 0.1


def begin(context: Context, selection: Selection) -> Bulk:
    """What is local of the selection's objects, to be fetched by `fetch`; `close` it."""
    local = {
        entry.digest: entry.size - missing_bytes(entry, context.store.peek(entry.digest))
        for entry in selection.objects
    }
    failed = partial(_fail, selection.version.spec)
    return Bulk(context.fetcher, selection.version, local, parts=_parts, failed=failed)


async def fetch(context: Context, selection: Selection, bulk: Bulk) -> None:
    """Have every chunk of the selection local and usable.

    Raises:
        AxonError: a file cannot be fetched; names it.
    """
    async with trio.open_nursery() as ticking:
        ticking.start_soon(_tick, context, selection, bulk)
        # Twice the streams, so that none idles while the end of a part settles.
        await bulk.fetch(selection.objects, width=2 * context.settings.streams)
        ticking.cancel_scope.cancel()
    await context.events.send(progress(selection, bulk))


def progress(selection: Selection, bulk: Bulk) -> Event:
    """How far the pin is, in bytes."""
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
    """All of an object, also what is local: it has to be fit to be served."""
    whole = feed.object.present(0, feed.object.count) and feed.allowed
    return () if whole else feed.parts()


def _fail(spec: Spec, entry: FileEntry, exc: AxonError | OSError) -> None:
    raise exc.located(spec=str(spec), path=entry.path) if isinstance(exc, AxonError) else exc
