"""Objects that come without a chunk table: their bytes are judged as a whole, by sha256.

For worker threads.
"""

from __future__ import annotations

import hashlib
import os

from axonfs.errors import CorruptError
from axonfs.store import StoredObject

_READ_SIZE = 4 << 20


def verify_whole(stored: StoredObject, source: str | None = None) -> None:
    """Mark a complete object as verified, or drop its bytes and never serve them again.

    No verdict where chunks were given up meanwhile: it is judged when it is complete again.

    Raises:
        CorruptError: the digest is wrong; the object is quarantined, with `source` as the culprit.
    """
    if stored.verified or not stored.complete:
        return
    epoch = stored.epoch
    if digest_of(stored.fd, stored.size) == stored.digest:
        stored.mark_verified()
        return
    # Bits go before bytes, and the epoch moves last: either shows that holes were read as zeros.
    if stored.missing(0, stored.count) or stored.epoch != epoch:
        return
    cause = f"object {stored.digest[:12]} has the wrong sha256"
    # First the mark: a reader that finds the chunks gone must not fetch them again.
    stored.quarantine(f"{cause}, from {source}" if source else cause)
    stored.discard()
    raise CorruptError(cause, source=source, hint="axonfs verify --repair fetches it again")


def digest_of(fd: int, size: int) -> str:
    """sha256 of the first `size` bytes of a file, in hex; lets other threads run."""
    whole = hashlib.sha256()
    view = memoryview(bytearray(min(size, _READ_SIZE)))
    offset = 0
    while offset < size:
        count = os.preadv(fd, [view[: size - offset]], offset)
        if count == 0:
            break
        whole.update(view[:count])
        offset += count
    return whole.hexdigest()
