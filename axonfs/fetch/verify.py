"""What is local, judged: chunks that nothing vouches for since the boot, and whole objects.

An object that comes without a chunk table is judged by its sha256, or by its git blob id where a
hub knows no other. What a package vouches for is right once it is complete: its last chunk lands
when the package was seen to be.

For worker threads.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os

from axonfs.errors import CorruptError
from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.manifest import FileEntry
from axonfs.ranges import Range
from axonfs.store import StoredObject

log = logging.getLogger(__name__)

_READ_SIZE = 4 << 20


def wrong_chunks(
    stored: StoredObject, chunks: Range, table: ChunkTable | None, entry: FileEntry
) -> list[int]:
    """Read local chunks and compare; the wrong ones are dropped and returned.

    Raises:
        OSError: the disk failed.
    """
    buffer = memoryview(bytearray(stored.chunk_size))
    right = table.right if table else None
    if table is None and entry.named:  # only its package tells what the index does not know
        right = _unknown
    wrong = [chunk for chunk in range(*chunks) if stored.check(chunk, buffer, right) is False]
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
    stored: StoredObject, entry: FileEntry, source: str | None = None, *, final: bool = True
) -> bool:
    """Mark a complete object as verified, or drop its bytes; False if they were wrong.

    Args:
        entry: says what they are compared with.
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
        if entry.packed or _is_right(stored, entry.git):
            stored.mark_verified(generation)
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
    whole = hashlib.sha1(b"blob %d\0" % stored.size, usedforsecurity=False)
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


def _is_right(stored: StoredObject, git: str | None) -> bool:
    if git is None:
        return digest_of(stored.opened(), stored.size) == stored.digest
    return digest_of(stored.opened(), stored.size, "sha1", b"blob %d\0" % stored.size) == git


def digest_of(fd: int, size: int, algorithm: str = "sha256", before: bytes = b"") -> str:
    """The digest of `before` and the first `size` bytes of a file, in hex; lets other threads run.

    Raises:
        OSError: the disk failed, or the file is shorter.
    """
    whole = hashlib.new(algorithm, before, usedforsecurity=False)
    view = memoryview(bytearray(min(size, _READ_SIZE)))
    offset = 0
    while offset < size:
        count = os.preadv(fd, [view[: size - offset]], offset)
        if count == 0:
            raise OSError(errno.EIO, "a backing file is too short")
        whole.update(view[:count])
        offset += count
    return whole.hexdigest()
