"""Objects and chunk tables that are compared with a manifest, and brought from another registry.

manifest → sha256 of the chunk table → digest of each chunk; and the sha256 of the whole, which is
the name that other versions find the object by. Blocking; any thread.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

from axonfs.errors import AxonError, CorruptError, UnverifiedError, naming
from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.layout import object_key, table_key
from axonfs.formats.manifest import DEFAULT_CHUNK_SIZE, FileEntry
from axonfs.publish.copying import Digests
from axonfs.publish.registry import Registry
from axonfs.registries.reader import Origin
from axonfs.registries.transfer import Transfer
from axonfs.sources.whole import Sink
from axonfs.storage import Directory, Storage


def check_named(entry: FileEntry) -> None:
    """
    Raises:
        UnverifiedError: the manifest has no sha256 of the file.
    """
    if entry.named or entry.git:
        what = "the manifest has no sha256 of this file, so its bytes cannot be verified"
        raise UnverifiedError(what, hint="publish the model anew")


def verify(
    reader: Origin,
    base: str,
    entry: FileEntry,
    table: ChunkTable | None,
    work: Transfer,
    sink: Sink = bool,
) -> ChunkTable:
    """Read an object, compare it, and pass it to `sink`; return its chunk table.

    Args:
        table: the table that the manifest names, if it names one.

    Raises:
        CorruptError: the bytes do not match. `sink` has had those before.
    """
    digests = Digests(table.chunk_size if table else DEFAULT_CHUNK_SIZE)

    def take(piece: memoryview) -> None:
        number = digests.size // (table.chunk_size if table else DEFAULT_CHUNK_SIZE)
        if table and not table.right(number, piece):
            raise CorruptError(f"chunk {number} of the object does not match the chunk table")
        digests.add(piece)
        sink(piece)
        work.moved(len(piece))

    with naming(source=reader.whereabouts(base, entry)):
        reader.read(base, entry, take, lambda: work.stopped)
        digest, made = digests.finish()
        if digest != entry.digest:
            raise CorruptError("the object does not match its sha256")
    return table or made


def bring(
    reader: Origin,
    base: str,
    entry: FileEntry,
    table: ChunkTable | None,
    target: Registry,
    work: Transfer,
) -> ChunkTable:
    """Copy an object from `reader` into `target`, in place of any other with its name; return its
    chunk table."""
    with _spool(target.storage) as fd, target.storage.upload(fd, bool) as new:

        def take(piece: memoryview) -> None:
            if fd >= 0:
                write_spool(fd, piece)
            new.write(piece)

        made = verify(reader, base, entry, table, work, take)
        new.settle(object_key(entry.digest), entry.digest, made)
    return made


def put_table(target: Registry, digest: str, table: ChunkTable) -> None:
    """Store the chunk table of an object in `target`, in place of any other."""
    key, body = table_key(digest), table.encode()
    if not target.storage.put(key, body):
        found = target.storage.read(key, max(len(body), target.storage.size(key) or 0))
        if found and found.body == body:
            return
        target.storage.delete(key)
        target.storage.put(key, body)


@contextlib.contextmanager
def _spool(storage: Storage) -> Iterator[int]:
    """A temporary file with the object, for a storage that reads what it uploads; else -1."""
    if isinstance(storage, Directory):
        yield -1
        return
    with spool() as fd:
        yield fd


@contextlib.contextmanager
def spool() -> Iterator[int]:
    """A temporary file for one object.

    Raises:
        AxonError: it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(tempfile.TemporaryFile(prefix="axonfs-", dir=_spools()))
        except OSError as exc:
            raise _unkept(exc) from exc
        yield made.fileno()


def _spools() -> str:
    return os.environ.get("TMPDIR") or "/var/tmp"


def write_spool(fd: int, piece: memoryview) -> None:
    """Append to a temporary file.

    Raises:
        AxonError: there is no room for it.
    """
    try:
        while piece:
            piece = piece[os.write(fd, piece) :]
    except OSError as exc:
        raise _unkept(exc) from exc


def _unkept(exc: OSError) -> AxonError:
    what = f"the object cannot be kept in {_spools()} on its way: {exc.strerror}"
    return AxonError(what, hint="set TMPDIR to a directory with room for the largest file")
