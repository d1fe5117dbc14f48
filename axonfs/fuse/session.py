"""pyfuse3's session on a connection of our own, from the handshake to the unmount.

libfuse is given one end of a socket pair as its connection, the kernel's INIT to read there, and
its reply is amended before the kernel gets it; then the connection takes the socket's place. Where
that does not work, libfuse opens and mounts by itself, and `Session.plain` says why.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyfuse3
import trio

from axonfs.connection import Terms, amend, clear_dead, parse_offer, readahead_setting
from axonfs.connection.handshake import (
    BACKGROUND,
    NO_OPENDIR_SUPPORT,
    READ_BYTES,
    forget_names_notification,
    opcode_of,
    refusal,
    resend_notification,
)
from axonfs.connection.held import Held
from axonfs.connection.mountinfo import shown
from axonfs.errors import UnsupportedError
from axonfs.fuse.adapter import WINDOW, Adapter, invalidate_pages
from axonfs.fuse.pages import Pages
from axonfs.fuse.passthrough import Passthrough

log = logging.getLogger(__name__)


# How often it is looked whether the connection still is there, in seconds.
GONE_INTERVAL = 0.5
# Requests handled at a time. Readers that wait for a slow source must not keep a `stat` waiting, so
# that is far more than the kernel has in the background. Each takes some 20 KiB while it waits.
HANDLERS = 4 * BACKGROUND
_NEGOTIATION_SECONDS = 10.0
_STATFS, _REQUEST_STEP, _LOOK_BACK = 17, 2, 1 << 17


class HandshakeError(UnsupportedError):
    """libfuse or the kernel does not go along with a connection of our own."""


@dataclass(slots=True)
class Session:
    """A mounted file system; `serve` answers until `stop` or an unmount from outside.

    `descriptor` is the connection's. `plain` says why libfuse made it, None where it is our own.
    `keeps_listings`: the kernel may do without opening directories, and then keeps their listings.
    `agreed` is set once the handshake is over: before that nothing can be told to the kernel.
    """

    descriptor: int
    passthrough: Passthrough
    terms: Terms | None = None
    plain: str | None = None
    read_ahead_kib: int = 128
    keeps_listings: bool = False
    _handshake: Handshake | None = None
    pages: Pages = field(init=False)
    agreed: trio.Event = field(default_factory=trio.Event)
    _stopping: trio.Event = field(default_factory=trio.Event)
    _nursery: trio.Nursery | None = None

    def __post_init__(self) -> None:
        self.pages = Pages(self.passthrough.is_open, invalidate_pages)

    async def serve(self) -> None:
        """Answer requests until the mount ends or `stop`, which waits for the handshake."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(pyfuse3.main, 1, HANDLERS)
            if self._handshake is not None:
                self.terms = await trio.to_thread.run_sync(self._handshake.finish)
                if not self.terms.passthrough:
                    self.passthrough.deny("this kernel does not offer it")
                # A new file has the descriptor now; this has trio's epoll see it.
                await trio.lowlevel.wait_writable(self.descriptor)
            self.agreed.set()
            nursery.start_soon(self._stop_when_gone)
            await self._stopping.wait()
            nursery.cancel_scope.cancel()

    def set_readahead(self, connection: int) -> None:
        """Have the kernel read `WINDOW` at a time."""
        try:
            readahead_setting(connection).write_text(f"{WINDOW >> 10}")
            self.read_ahead_kib = WINDOW >> 10
        except OSError as exc:
            log.debug("requests stay as they are: %s", exc)

    def forget_names(self) -> None:
        """Have the kernel look every name up again, also those that were not there."""
        try:
            os.write(self.descriptor, forget_names_notification())
        except OSError as exc:
            log.debug("this kernel keeps the names that it knows for a while: %s", exc)

    def drop_pages(self, inode: int) -> None:
        """Have the kernel forget its pages of a file that it reads itself from the next open on."""
        if self._nursery is not None:
            self._nursery.start_soon(self.pages.drop, inode)

    def state(self) -> dict[str, Any]:
        """The connection, for `status`."""
        terms = self.terms
        return {
            "own": self.plain is None,
            "why_not_own": self.plain,
            "passed_through": self.passthrough.files,
            "why_no_passthrough": self.passthrough.why_not,
            "resend": terms is not None and terms.resend,
            "protocol": f"7.{terms.minor}" if terms else None,
            "max_background": terms.max_background if terms else None,
            "read_ahead_kib": self.read_ahead_kib,
        }

    def stop(self) -> None:
        """Have `serve` return."""
        self._stopping.set()

    async def _stop_when_gone(self) -> None:
        """Leave when the connection ended: pyfuse3 would first finish what nobody waits for."""
        device = select.poll()
        device.register(self.descriptor, 0)  # POLLERR is always reported
        while not device.poll(0):  # noqa: ASYNC110 - the kernel sets no event of ours
            await trio.sleep(GONE_INTERVAL)
        log.info("the kernel ended the connection")
        self.stop()


class Handshake:
    """INIT between the kernel and libfuse, with us in the middle.

    A worker that is not the connection's first has libfuse answer the same message, but the kernel,
    which had its answer, is asked instead to send again what the last one left unanswered.
    """

    def __init__(self, held: Held, mountpoint: Path, *, passthrough: bool) -> None:
        self._held = held
        self._mountpoint = mountpoint
        self._passthrough = passthrough
        self.offer = parse_offer(held.init)
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(_NEGOTIATION_SECONDS)
        self.descriptor = theirs.detach()
        os.set_blocking(self.descriptor, False)
        self._ours.send(held.init)

    def finish(self) -> Terms:
        """Have the kernel and libfuse agree; blocks until they have.

        Raises:
            HandshakeError: libfuse or the kernel does not go along.
        """
        device = self._held.device
        try:
            reply = self._ours.recv(READ_BYTES)
            amended, terms = amend(reply, self.offer, passthrough=self._passthrough)
            # Before dup2: a request that was read and is then sent again would be handled twice.
            if self._held.first:
                os.write(device, amended)
            elif terms.resend:
                os.write(device, resend_notification())
            elif shown(self._mountpoint, self._held.connection):
                refuse_unanswered(device, self._mountpoint)
        except (OSError, ValueError) as exc:
            raise HandshakeError(f"the FUSE handshake failed: {exc}") from exc
        os.set_blocking(device, False)
        os.dup2(device, self.descriptor, inheritable=False)
        os.close(device)
        # Last: libfuse would take the end of the socket for the end of the connection.
        self._ours.close()
        return terms


def refuse_unanswered(device: int, mountpoint: Path) -> None:
    """Give the requests that an earlier worker left unanswered an errno, on kernels before 6.9.

    Such a kernel neither sends them again nor says which they are, but numbers them upwards. A
    request of our own shows the latest number; a reply to a number that waits for none is refused
    and does no harm.
    """
    own = threading.Thread(target=_ask_statfs, args=(mountpoint,), daemon=True)
    own.start()
    os.set_blocking(device, True)
    opcode = unique = 0
    while opcode != _STATFS:
        opcode, unique = opcode_of(os.read(device, READ_BYTES))
        _refuse(device, unique)
    for number in range(unique - _REQUEST_STEP, max(0, unique - _LOOK_BACK), -_REQUEST_STEP):
        _refuse(device, number)


def _refuse(device: int, unique: int) -> None:
    with suppress(OSError):  # ENOENT: nobody waits for it
        os.write(device, refusal(unique, errno.EIO))


def _ask_statfs(mountpoint: Path) -> None:
    with suppress(OSError):
        os.statvfs(mountpoint)


@contextmanager
def serving(
    adapter: Adapter, held: Held, mountpoint: Path, *, allow_other: bool, passthrough: bool
) -> Iterator[Session]:
    """A session on a held connection, or on one that libfuse makes; it stays mounted at the end.

    Args:
        passthrough: let the kernel read complete files itself where it can.

    Raises:
        UnsupportedError: libfuse cannot mount.
    """
    if held.plain is not None:
        clear_dead(mountpoint)
        session = _plain(adapter, mountpoint, held.plain, allow_other=allow_other)
    else:
        session = _own(adapter, held, mountpoint, passthrough=passthrough)
    adapter.passthrough = session.passthrough
    adapter.keeps_listings = session.keeps_listings
    adapter.drop_pages, adapter.pages = session.drop_pages, session.pages
    try:
        yield session
    finally:
        pyfuse3.close(unmount=False)  # the holder does that: libfuse unmounts what lies on top too


def _own(adapter: Adapter, held: Held, mountpoint: Path, *, passthrough: bool) -> Session:
    why_not = None if passthrough else "it is switched off"
    why_not = why_not or (None if os.geteuid() == 0 else "only root may set it up")
    handshake = Handshake(held, mountpoint, passthrough=why_not is None)
    try:
        pyfuse3.init(adapter, f"/dev/fd/{handshake.descriptor}", set())
    except RuntimeError as exc:
        raise HandshakeError(f"libfuse does not take the connection: {exc}") from exc
    backing = Passthrough(handshake.descriptor, why_not)
    keeps = handshake.offer.has(NO_OPENDIR_SUPPORT)
    return Session(handshake.descriptor, backing, keeps_listings=keeps, _handshake=handshake)


def _plain(adapter: Adapter, mountpoint: Path, why: str, *, allow_other: bool) -> Session:
    options = set(pyfuse3.default_options) | {"ro", "fsname=axonfs", "subtype=axonfs"}
    options |= {"allow_other"} if allow_other else set()
    try:
        pyfuse3.init(adapter, str(mountpoint), options)
    except RuntimeError as exc:
        what = "libfuse, which says why on its standard error, cannot mount"
        raise UnsupportedError(what, path=str(mountpoint), hint="see axonfs doctor") from exc
    device = _device_of_libfuse()
    return Session(device, Passthrough(device, f"libfuse made the connection: {why}"), plain=why)


def _device_of_libfuse() -> int:
    """The descriptor of the FUSE connection, which libfuse keeps to itself."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "/dev/fuse":
                return int(name)
    raise UnsupportedError("libfuse has no /dev/fuse open", hint="report this")
