"""pyfuse3's session on a connection of our own, from the handshake to the unmount.

libfuse gets one end of a socket pair as its connection and reads the kernel's INIT there. Its reply
is amended before the kernel gets it; then the connection's descriptor replaces the socket. If that
fails, libfuse opens and mounts by itself, and `Session.plain` says why. Trio thread; the handshake
runs in a worker thread.
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
from axonfs.connection.mounting import Manner
from axonfs.errors import UnsupportedError
from axonfs.fuse import openreply
from axonfs.fuse.adapter import WINDOW, Adapter
from axonfs.fuse.notices import invalidate_pages
from axonfs.fuse.pages import Pages
from axonfs.fuse.passthrough import Passthrough
from axonfs.fuse.reads import NativeReads

log = logging.getLogger(__name__)


# How often the session checks whether the connection has ended, in seconds.
GONE_INTERVAL = 0.5
# Requests handled at a time: far more than the kernel sends in the background, so that no `stat`
# has to wait for readers of a slow source. A waiting request takes some 20 KiB.
HANDLERS = 4 * BACKGROUND
_NEGOTIATION_SECONDS = 10.0
_STATFS, _REQUEST_STEP, _LOOK_BACK = 17, 2, 1 << 17


class HandshakeError(UnsupportedError):
    """libfuse or the kernel refuses a connection of our own."""


class Session:
    """A file system on a held connection, or on one that libfuse makes.

    `mounted` starts it and `serve` answers requests. `plain` says why libfuse makes the connection;
    None if it is our own. `keeps_listings`: the kernel can use directories without opening them,
    and then caches their listings. `agreed` is set after the handshake: before it the kernel takes
    no notices.

    Args:
        held: what the holder passed to this worker.
        native: threads that answer reads; they run only on a connection of our own.
        manner: how libfuse mounts, if it has to.
        passthrough: let the kernel read complete files itself, if it can.
    """

    def __init__(
        self,
        held: Held,
        mountpoint: Path,
        native: NativeReads,
        *,
        manner: Manner,
        passthrough: bool,
    ) -> None:
        self._mountpoint = mountpoint
        self._manner = manner
        self.plain = held.plain
        why_not = _why_not_passed_through(held, wanted=passthrough)
        self._handshake = (
            Handshake(held, mountpoint, passthrough=why_not is None) if held.plain is None else None
        )
        self._descriptor = self._handshake.descriptor if self._handshake else -1
        self.keeps_listings = self._handshake is not None and self._handshake.offer.has(
            NO_OPENDIR_SUPPORT
        )
        self.passthrough = Passthrough(self._descriptor, why_not)
        self._native = native
        self.pages = Pages(self.passthrough.is_open, invalidate_pages)
        self.agreed = trio.Event()
        self._terms: Terms | None = None
        self._read_ahead_kib = 128
        self._stopping = trio.Event()

    @contextmanager
    def mounted(self, adapter: Adapter) -> Iterator[None]:
        """Have libfuse use the held connection, or make one; it stays mounted afterwards.

        Raises:
            HandshakeError: libfuse refuses the connection.
            UnsupportedError: libfuse cannot mount.
        """
        if self._handshake is not None:
            _give_to_libfuse(adapter, self._handshake.descriptor)
        else:
            clear_dead(self._mountpoint)
            _have_libfuse_mount(adapter, self._mountpoint, self._manner)
            self._descriptor = _device_of_libfuse()
        try:
            yield
        finally:  # the holder unmounts: libfuse would also unmount a file system on top
            pyfuse3.close(unmount=False)

    async def serve(self) -> None:
        """Answer requests until the mount ends or `stop` is called; the handshake comes first."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._handle_requests)
                if self._handshake is not None:
                    await self._agree(self._handshake)
                    self._native.start(self._descriptor)
                else:
                    self._native.why_not = f"libfuse made the connection: {self.plain}"
                self.agreed.set()
                nursery.start_soon(self._native.run)
                nursery.start_soon(self.pages.run)
                nursery.start_soon(self._stop_when_gone)
                await self._stopping.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._native.stop()

    async def _handle_requests(self) -> None:
        await pyfuse3.main(1, HANDLERS)
        self._end()  # the native threads had libfuse end it, and no request was pending

    async def _agree(self, handshake: Handshake) -> None:
        """Complete the handshake; then the kernel's requests come."""
        self._terms = await trio.to_thread.run_sync(handshake.finish)
        if not self._terms.passthrough:
            self.passthrough.deny("this kernel does not offer it")
        # The descriptor now is another file, which whoever waits for it has to notice.
        if not openreply.watch(self._descriptor):
            await trio.lowlevel.wait_writable(self._descriptor)

    def set_readahead(self, connection: int) -> None:
        """Have the kernel read `WINDOW` at a time, if this user may set that."""
        setting = readahead_setting(connection)
        try:
            setting.write_text(f"{WINDOW >> 10}")
        except OSError as exc:
            log.debug("cannot set the kernel's readahead: %s", exc)
        with suppress(OSError):
            self._read_ahead_kib = int(setting.read_text())

    def forget_names(self) -> None:
        """Have the kernel look up every name again, also those that did not exist."""
        try:
            os.write(self._descriptor, forget_names_notification())
        except OSError as exc:
            log.debug("cannot have the kernel forget names before they time out: %s", exc)

    def state(self) -> dict[str, Any]:
        """The connection, for `status`."""
        terms = self._terms
        return {
            "own": self.plain is None,
            "why_not_own": self.plain,
            "passed_through": self.passthrough.files,
            "why_no_passthrough": self.passthrough.why_not,
            "native_reads": self._native.state(),
            "resend": terms is not None and terms.resend,
            "protocol": f"7.{terms.minor}" if terms else None,
            "max_background": terms.max_background if terms else None,
            "read_ahead_kib": self._read_ahead_kib,
        }

    def stop(self) -> None:
        """Have `serve` return."""
        self._stopping.set()

    async def _stop_when_gone(self) -> None:
        """Stop when the connection has ended: pyfuse3 would first finish all pending requests."""
        device = select.poll()
        device.register(self._descriptor, 0)  # POLLERR is always reported
        while not device.poll(0):  # noqa: ASYNC110 - the kernel sets no event of ours
            await trio.sleep(GONE_INTERVAL)
        self._end()

    def _end(self) -> None:
        if not self._stopping.is_set():
            log.info("the kernel ended the connection")
        self.stop()


class Handshake:
    """Passes INIT from the kernel to libfuse and the amended answer back.

    The kernel has its answer from the connection's first worker. A later worker has libfuse answer
    the same message and drops the reply; it asks the kernel to resend the unanswered requests.
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
        """Complete the handshake; blocks.

        Raises:
            HandshakeError: libfuse or the kernel refuses.
        """
        device = self._held.device
        try:
            reply = self._ours.recv(READ_BYTES)
            amended, terms = amend(reply, self.offer, passthrough=self._passthrough)
            # Before dup2: a request that was read before it is resent would be handled twice.
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
    """Answer the requests that an earlier worker left unanswered with EIO, on kernels before 6.9.

    Such a kernel neither resends them nor lists them, but numbers requests upwards. A request of
    our own shows the latest number; a reply to a request that is not waiting is refused and does no
    harm.
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
    with suppress(OSError):  # ENOENT: no such request is waiting
        os.write(device, refusal(unique, errno.EIO))


def _ask_statfs(mountpoint: Path) -> None:
    with suppress(OSError):
        os.statvfs(mountpoint)


def _why_not_passed_through(held: Held, *, wanted: bool) -> str | None:
    """Why the kernel may not read complete files itself; None if it may."""
    if held.plain is not None:
        return f"libfuse made the connection: {held.plain}"
    if not wanted:
        return "it is switched off"
    return None if os.geteuid() == 0 else "only root may set it up"


def _give_to_libfuse(adapter: Adapter, descriptor: int) -> None:
    try:
        pyfuse3.init(adapter, f"/dev/fd/{descriptor}", set())
    except RuntimeError as exc:
        raise HandshakeError(f"libfuse refuses the connection: {exc}") from exc


def _have_libfuse_mount(adapter: Adapter, mountpoint: Path, manner: Manner) -> None:
    options = set(pyfuse3.default_options) | {"ro", manner.words}
    try:
        pyfuse3.init(adapter, str(mountpoint), options)
    except RuntimeError as exc:
        what = "libfuse cannot mount (its own message is on standard error)"
        raise UnsupportedError(what, path=str(mountpoint), hint="see axonfs doctor") from exc


def _device_of_libfuse() -> int:
    """The descriptor of the FUSE connection, which libfuse does not tell."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "/dev/fuse":
                return int(name)
    raise UnsupportedError("libfuse has no /dev/fuse open", hint="report this")
