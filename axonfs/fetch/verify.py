"""What is local, judged: chunks that nothing vouches for since the boot, and whole objects.

An object that comes without a chunk table is judged by its sha256, or by its git blob id where a
hub knows no other. What a package vouches for is right once it is complete: its last chunk lands
when the package was seen to be.

For worker threads.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from axonfs.errors import CorruptError
from axonfs.fetch.hashing import Hashing, git_blob
from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.manifest import FileEntry
from axonfs.ranges import Range
from axonfs.store import StoredObject

log = logging.getLogger(__name__)


def wrong_chunks(
    stored: StoredObject,
    chunks: Range,
    table: ChunkTable | None,
    entry: FileEntry,
    proceed: Callable[[], object] = bool,
) -> list[int]:
    """Read local chunks and compare; the wrong ones are dropped and returned.

    Args:
        proceed: called before each chunk is read; what it raises ends the call.

    Raises:
        OSError: the disk failed.
    """
    buffer = memoryview(bytearray(stored.chunk_size))
    right = table.right if table else None
    if table is None and entry.named:  # only its package tells what the index does not know
        right = _unknown
    wrong = []
    for chunk in range(*chunks):
        proceed()
        if stored.check(chunk, buffer, right) is False:
            wrong.append(chunk)
    if wrong:
        log.warning(
            "%d chunks of object %s were damaged on the disk; fetching them again",
            len(wrong),
            stored.digest[:12],
        )
    return wrong


def _unknown(chunk: int, view: memoryview) -> bool:
    return False


def verify_whole(
    stored: StoredObject,
    entry: FileEntry,
    source: str | None = None,
    *,
    hashing: Hashing | None = None,
    proceed: Callable[[], object] = bool,
    final: bool = True,
) -> bool:
    """Mark a complete object as verified, or drop its bytes; False if they were wrong.

    The digests of its chunks, made in the same pass, become its own chunk table.

    Args:
        entry: says what they are compared with.
        hashing: has read some of the object; by default all of it is read now.
        proceed: called before each chunk is read; what it raises ends the call.
        source: the culprit, if the bytes are wrong.
        final: whether wrong bytes are never served again, rather than fetched once more.

    No verdict where chunks were given up or written meanwhile: it is judged when it is complete
    again.

    Raises:
        CorruptError: the digest is wrong, for good; the object is quarantined.
        OSError: the disk failed.
    """
    generation, failure = stored.generation(), None
    if stored.verified or not stored.complete:
        return True
    try:
        if entry.packed:
            stored.mark_verified(generation)
            return True
        digest, table = (hashing or Hashing(stored, entry.git)).finish(proceed)
        if digest == (entry.git or stored.digest):
            stored.mark_verified(generation, table)
            return True
    except OSError as exc:
        failure = exc
    # Bits go before bytes, and the epoch moves last: either shows that holes were read as zeros,
    # or the file while it was cut.
    if stored.missing(0, stored.count) or stored.generation() != generation:
        return True
    if failure:
        raise failure
    if stored.adopted(0, stored.count):  # found without an index: a crash may have spoilt them
        log.warning(
            "what was left of object %s is not whole; fetching it again", stored.digest[:12]
        )
        stored.discard()
        return True
    cause = f"object {stored.digest[:12]} has the wrong {'git blob id' if entry.git else 'sha256'}"
    if not final:
        log.info("%s, from %s; fetching it again from one answer", cause, source or "its source")
        stored.discard()
        return False
    # First the mark: a reader that finds the chunks gone must not fetch them again.
    stored.quarantine(f"{cause}, from {source}" if source else cause)
    stored.discard()
    raise CorruptError(cause, source=source, hint="axonfs verify --repair fetches it again")


def judge_passed(stored: StoredObject, passed: dict[int, bytes], git: str) -> None:
    """Compare a small object that is in memory, as far as the disk did not take it.

    Args:
        passed: gets the chunks that are on the disk as well.

    Chunks that were given up meanwhile are in `passed` no more.

    Raises:
        CorruptError: its git blob id is wrong.
        OSError: the disk failed.
    """
    on_disk = [chunk for chunk in range(stored.count) if chunk not in passed]
    whole = git_blob(stored.size)
    for chunk in range(stored.count):
        if chunk not in passed:
            start, stop = stored.bytes_of(Range(chunk, chunk + 1))
            passed[chunk] = os.pread(stored.opened(), stop - start, start)
        whole.update(passed[chunk])
    given_up = [chunk for chunk in on_disk if not stored.present(chunk, chunk + 1)]
    for chunk in given_up:
        del passed[chunk]
    if whole.hexdigest() != git and not given_up:
        raise CorruptError(f"object {stored.digest[:12]} has the wrong git blob id")
