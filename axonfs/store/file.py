"""The backing file of one object in use.

Beside objects, above backing and presence. The file is opened when a call needs it, and closed by
OpenFiles when there are too many open files. While the object is held it stays the same file: a
different file in its place is refused, since the index's bits do not apply to it.

Any thread may use `fd` for a call if the file is open; `opened` and `writable` block.
"""

from __future__ import annotations

import errno
import logging
import os
import time

from axonfs import descriptors
from axonfs.ranges import Range
from axonfs.store import backing
from axonfs.store.health import DISK_FAULTS
from axonfs.store.ledger import Ledger
from axonfs.store.openfiles import Descriptor
from axonfs.store.presence import Presence

log = logging.getLogger(__name__)

# Seconds for which a call waits between retries while the process has no descriptor left.
PAUSES = (0.05, 0.1, 0.2, 0.4)


class BackingFile:
    """The file with the bytes of `presence`; opened under the ledger's lock.

    The lock of the open files guards `held` and `fd`. `readable` is false if the last attempt to
    open the file failed.
    """

    __slots__ = ("_identity", "_key", "_ledger", "_presence", "_sealed", "fd", "held", "readable")

    def __init__(self, ledger: Ledger, key: str, presence: Presence) -> None:
        self._ledger = ledger
        self._key = key
        self._presence = presence
        self.fd: Descriptor | None = None
        self.reset()

    @property
    def accessed(self) -> float:
        """The time of the object's last use, in unix seconds."""
        return self._presence.accessed

    def reset(self) -> None:
        """Forget the file after the object was released and the file closed."""
        self._identity: tuple[int, int] | None = None  # of the file, after its first open
        self._sealed = False  # whether it could only be opened for reading
        self.readable, self.held = True, False

    def opened(self) -> Descriptor:
        """The descriptor, to be kept during one call. The caller holds the object.

        Raises:
            NoSpaceError, OSError: the file cannot be opened, or was replaced.
        """
        for pause in PAUSES:
            try:
                return self._opened()
            except OSError as exc:
                if not descriptors.is_shortage(exc):
                    raise
                self._ledger.files.make_room()
            time.sleep(pause)
        return self._opened()

    def _opened(self) -> Descriptor:
        if (descriptor := self.fd) is not None:
            return descriptor
        with self._ledger.lock:
            if (descriptor := self.fd) is not None:
                return descriptor
            try:
                descriptor = self._open()
            except DISK_FAULTS as exc:
                self.readable = False
                self._ledger.health.failed(exc)
                raise
            self.readable = True
            self._ledger.files.add(self, descriptor)
            return descriptor

    def writable(self) -> Descriptor:
        """Like `opened`, but opens a file again that could only be opened for reading."""
        descriptor = self.opened()
        if not self._sealed:
            return descriptor
        with self._ledger.lock:
            descriptor = self._ledger.directory.open_backing(self._key, writable=True, create=False)
            self._ledger.files.add(self, descriptor)
            self._sealed = False
        return descriptor

    def _open(self) -> Descriptor:
        """Open the file; the first time, drop the chunks whose bytes the file has lost."""
        descriptor = self._open_unless_sealed()
        found = os.fstat(descriptor)
        if self._identity not in (None, (found.st_dev, found.st_ino)):
            path = self._ledger.directory.backing(self._key)
            raise OSError(errno.EIO, f"{path} was replaced by another file")
        if self._identity is None and not self._sealed and self._ledger.index.writable:
            self._examine(descriptor)
        self._identity = found.st_dev, found.st_ino
        return descriptor

    def _open_unless_sealed(self) -> Descriptor:
        ledger, first = self._ledger, self._identity is None
        try:
            return ledger.directory.open_backing(
                self._key, writable=ledger.index.writable and not self._sealed, create=first
            )
        except OSError as exc:
            if exc.errno != errno.EROFS or ledger.directory.length(self._key) < 0:
                raise
            ledger.health.failed(exc)
            self._sealed = True
            return ledger.directory.open_backing(self._key, writable=False)

    def _examine(self, descriptor: Descriptor) -> None:
        """Compare the file with the bits. No chunk lands meanwhile: that needs the descriptor."""
        presence = self._presence
        if presence.present.count == 0:
            backing.clear(descriptor, presence.size)  # what a kill left between bits and bytes
        length = os.fstat(descriptor).st_size
        first = length // presence.chunk_size
        if length < presence.size and presence.present.extents(first, presence.count):
            path = self._ledger.directory.backing(self._key)
            log.warning("%s was truncated by another program; its bytes are fetched again", path)
            presence.forget(Range(first, presence.count), lambda bounds: None)
        backing.extend(descriptor, presence.size)
