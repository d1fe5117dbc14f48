"""The backing file of one object in use, which is open while that is worth a descriptor.

Beside objects, above backing and presence. The file is opened when a call needs it and closed by
OpenFiles when others need the descriptor more. While the object is held it stays the same file:
another one in its place is refused, since the index's bits are not about that one.

`fd`, where it is open, may be taken by any thread for a call; `opened` and `writable` block.
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

# How long a call waits while the process has no descriptor left, in seconds.
PAUSES = (0.05, 0.1, 0.2, 0.4)


class BackingFile:
    """The file that has the bytes of `presence`; opened under the ledger's lock.

    `held` is guarded by the lock of the open files, as `fd` is.
    `readable` is false where the disk did not let the file be opened when that was last tried.
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
        """When the object was used last, in unix seconds."""
        return self._presence.accessed

    def reset(self) -> None:
        """The object is not held any more: its file may be replaced. The file is closed."""
        self._identity: tuple[int, int] | None = None  # of the file, once it was looked at
        self._sealed = False  # it could only be opened for reading
        self.readable, self.held = True, False

    def opened(self) -> Descriptor:
        """The descriptor; keep it for the time of one call. The object is held.

        Raises:
            NoSpaceError, OSError: the file cannot be opened, or it is another one now.
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
        """As `opened`; what could only be opened for reading is opened once more."""
        descriptor = self.opened()
        if not self._sealed:
            return descriptor
        with self._ledger.lock:
            descriptor = self._ledger.directory.open_backing(self._key, writable=True, create=False)
            self._ledger.files.add(self, descriptor)
            self._sealed = False
        return descriptor

    def _open(self) -> Descriptor:
        """Opens the file; the first time chunks whose bytes are gone from it are forgotten."""
        descriptor = self._open_unless_sealed()
        found = os.fstat(descriptor)
        if self._identity not in (None, (found.st_dev, found.st_ino)):
            path = self._ledger.directory.backing(self._key)
            raise OSError(errno.EIO, f"{path} was replaced by something else")
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
        """No chunk is landing yet: each of them needs the descriptor."""
        presence = self._presence
        if presence.present.count == 0:
            backing.clear(descriptor, presence.size)  # what a kill left between bits and bytes
        length = os.fstat(descriptor).st_size
        first = length // presence.chunk_size
        if length < presence.size and presence.present.extents(first, presence.count):
            path = self._ledger.directory.backing(self._key)
            log.warning("%s lost bytes to something else; they are fetched again", path)
            presence.forget(Range(first, presence.count), lambda bounds: None)
        backing.extend(descriptor, presence.size)
