"""The chunk tables of models in an OCI registry, for a mount.

Below oci.py. Registries lose them while the files stay: what refers to a model has no tag of its
own, so Docker's `garbage-collect -m`, for one, removes it. A model whose tables are gone when it is
looked up is read without. One that is gone later is made again from the file's bytes. Trio only.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable

import trio

from axonfs.errors import (
    AxonError,
    CorruptError,
    MalformedError,
    NotFoundError,
    VanishedError,
    naming,
)
from axonfs.formats.chunktable import ChunkTable, chunk_digest
from axonfs.formats.manifest import FileEntry
from axonfs.http_client.bodies import Bodies
from axonfs.http_client.location import Location
from axonfs.http_client.urls import shown
from axonfs.sources.oci_documents import OciDocuments, location_of
from axonfs.sources.whole import read_body
from axonfs.steps import Cause, Step

log = logging.getLogger(__name__)

PATIENCE = 20.0  # seconds within which what refers to a model has to be listed and read


class OciTables:
    """Those of the models in one registry.

    Args:
        bodies: reads files whose tables are gone; without it these cannot be read.
    """

    def __init__(self, documents: OciDocuments, bodies: Bodies | None) -> None:
        self._documents = documents
        self._bodies = bodies

    async def kept(self, repository: str, digest: str) -> frozenset[str]:
        """The digests of the chunk tables that the registry keeps for a model. None are needed:
        without one, the sha256 of a file proves it."""
        why: object = f"what refers to it does not come within {PATIENCE:g} s"
        with trio.move_on_after(PATIENCE):
            try:
                return await self._listed(repository, digest)
            except AxonError as exc:
                why = exc
        name = f"{repository}@sha256:{digest}"
        log.warning("%s is read without chunk tables, which is slower: %s", name, why)
        return frozenset()

    async def _listed(self, repository: str, digest: str) -> frozenset[str]:
        found = frozenset[str]()
        for item in await self._documents.artifacts(repository, digest):
            try:
                artifact = await self._documents.artifact(repository, item.digest, digest)
            except (NotFoundError, MalformedError) as exc:  # others may be right
                log.info("what refers to a model is not used: %s", exc)
            else:
                found |= artifact.tables
        return found

    async def table(self, base: str, entry: FileEntry) -> ChunkTable | None:
        """The chunk table of a file of a version; None if the file names none.

        Raises:
            VanishedError: the registry lost it, and the bytes make another one.
        """
        try:
            return await self._documents.table(base, entry)
        except VanishedError as exc:
            if self._bodies is None:
                raise
            log.warning("%s; all of the file is read to make it again, before the first byte", exc)
            with naming(path=entry.path, source=base):
                return await self._made_again(self._bodies, location_of(base, entry.digest), entry)

    async def _made_again(self, bodies: Bodies, at: Location, entry: FileEntry) -> ChunkTable:
        left = threading.Event()
        try:
            about = f"for all bytes of {entry.path}, whose chunk table is gone"
            with Step(Cause.DOCUMENT, "reading", about=about, source=shown(at.url)):
                return await trio.to_thread.run_sync(
                    made_again, bodies, at, entry, left.is_set, abandon_on_cancel=True
                )
        finally:
            left.set()


def made_again(
    bodies: Bodies, location: Location, entry: FileEntry, stopped: Callable[[], bool]
) -> ChunkTable:
    """The chunk table that a file names, made from its bytes. Blocking.

    Raises:
        CorruptError: the bytes have another sha256.
        VanishedError: their table is another one, as if another hash function was used.
        StoppedError: `stopped` returned true.
    """
    assert entry.chunks is not None
    whole, digests = hashlib.sha256(), bytearray()

    def take(piece: memoryview) -> None:
        whole.update(piece)
        digests.extend(chunk_digest(piece))

    read_body(bodies, location, entry.size, take, entry.chunks.size, stopped, entry.digest)
    if whole.hexdigest() != entry.digest:
        raise CorruptError(f"object {entry.digest[:12]} has the wrong sha256")
    table = ChunkTable(entry.size, entry.chunks.size, bytes(digests))
    if table.ref != entry.chunks:
        what = "the registry does not have the chunk table that the layer names"
        raise VanishedError(what, hint="publish the model again")
    return table
