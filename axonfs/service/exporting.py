"""export_plan: the files of a version that are to be copied, and where the cache has them.

The asking process copies them, since it may see other directories than the owner of the cache, and
may have other rights. Trio thread; the store is looked at in a worker thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import trio

from axonfs.formats.entries import MANIFEST_NAME
from axonfs.formats.manifest import FileEntry
from axonfs.service.context import Context, Event, resolve, texts_of
from axonfs.service.selection import chosen, nothing_matches
from axonfs.store import Store
from axonfs.versions import parse_wanted


async def export_plan(context: Context, request: Event) -> Event:
    """The files of the version `spec`, as the mount shows them; globs as for pins.

    `backing` is the file in the cache that has all bytes, which were compared with a digest. It may
    change any time, so what is made of it has to be compared again.

    Raises:
        NotFoundError: there is no such version, or no file of it matches.
        UntrustedError: it is not signed by whom it has to be.
    """
    include, exclude = texts_of(request, "include"), texts_of(request, "exclude")
    version = await context.tree.version(
        await resolve(context, parse_wanted(str(request.get("spec"))))
    )
    manifest = version.manifest
    entries = [entry for entry in manifest.files if chosen(entry.path, include, exclude)]
    found = await trio.to_thread.run_sync(_files, context.store, entries)
    if manifest.shown and chosen(MANIFEST_NAME, include, exclude):
        proof = {"sha256": manifest.digest}
        found.append(_file(MANIFEST_NAME, len(manifest.raw), proof))
    if not found:
        raise nothing_matches(manifest.spec, include, exclude)
    return {"spec": str(manifest.spec), "files": found}


def _files(store: Store, entries: Iterable[FileEntry]) -> list[dict[str, Any]]:
    return [
        _file(entry.path, entry.size, entry.proof, executable=entry.executable)
        | {"backing": _backing(store, entry)}
        for entry in entries
    ]


def _file(
    path: str, size: int, proof: dict[str, str], *, executable: bool = False
) -> dict[str, Any]:
    return {"path": path, "size": size, "proof": proof, "executable": executable, "backing": None}


def _backing(store: Store, entry: FileEntry) -> str | None:
    info = store.peek(entry.digest)
    if info is None or not (info.complete and info.size) or entry.named:
        return None
    stored = store.object(entry)
    whole = stored.complete and store.compared(stored, entry)
    return store.backing(stored.key) if whole else None
