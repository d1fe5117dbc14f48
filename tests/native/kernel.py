"""Plays the kernel to the native core: sends requests over a socket, and keeps account of them.

Runs in a process of its own beside the core's threads, with the standard library only. Source of
the formats: fuse_in_header, fuse_read_in, fuse_interrupt_in and fuse_out_header of linux/fuse.h.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

READ, INTERRUPT, FORGET, GETATTR = 15, 36, 2, 3
RESENT = 1 << 63
HEADER = struct.Struct("=IIQQIIIHH")  # size, opcode, number, inode, uid, gid, thread, 0, 0
_READ_IN = struct.Struct("=QQIIQII")  # handle, offset, size, 0, 0, flags, 0
OUT = struct.Struct("=IiQ")
_REPEATED = struct.pack("=IQ", INTERRUPT, 0)
MOST = 2 << 20
_ROOM = 8 << 20

clock = itertools.count(1).__next__  # one step of it is atomic under the GIL


def load(path: str) -> Any:
    """The extension at `path`."""
    spec = importlib.util.spec_from_file_location("_native", path)
    assert spec is not None
    return importlib.util.module_from_spec(spec)


def header(opcode: int, number: int, size: int, *, inode: int = 1, thread: int = 1) -> bytes:
    """A request's header; `size` is that of its body."""
    return HEADER.pack(HEADER.size + size, opcode, number, inode, 0, 0, thread, 0, 0)


def read_request(
    number: int, handle: int, offset: int, size: int, *, inode: int = 1, thread: int = 1
) -> bytes:
    body = _READ_IN.pack(handle, offset, size, 0, 0, 0, 0)
    return header(READ, number, len(body), inode=inode, thread=thread) + body


def interrupt_request(number: int, of: int) -> bytes:
    return header(INTERRUPT, number, 8) + struct.pack("=Q", of)


def number_of(message: bytes) -> int:
    return int(HEADER.unpack_from(message)[2])


class Answer(NamedTuple):
    """The core's reply to a request; `error` is an errno."""

    number: int
    error: int
    data: memoryview


@dataclass(slots=True)
class Asked:
    """A request in flight. `what` is what the test knows of it, `since` when it was sent."""

    message: bytes
    what: Any
    since: int


class Connection:
    """A connection whose kernel is the test; `device` is what the core reads.

    A request is in flight until it is answered, or popped from the core's queue for Python.
    """

    def __init__(self) -> None:
        self._kernel, self._device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._kernel, self._device):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, option, _ROOM)
        self.device = self._device.fileno()
        self.asked: dict[int, Asked] = {}
        self._numbers = itertools.count(2, 2)
        self._lock = threading.Lock()
        self._buffer = bytearray(MOST)

    @property
    def largest(self) -> int:
        """The most bytes that a reply may have. An ordinary user gets less room, and for a message
        of more than 64 KiB the kernel may find no memory."""
        room = self._device.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        return min(1 << 16, room // 2 - 8192)

    def number(self) -> int:
        """A number for the next request."""
        return next(self._numbers)

    def send(self, message: bytes, what: Any = None) -> int:
        """Send a request; returns its number."""
        number = number_of(message)
        with self._lock:
            assert number not in self.asked, f"{number} is in flight"
            self.asked[number] = Asked(message, what, clock())
        self._kernel.send(message)
        return number

    def send_nothing(self, message: bytes) -> None:
        """Send what is no request, and gets no answer."""
        self._kernel.send(message)

    def read(self, handle: int, offset: int, size: int, what: Any = None) -> int:
        return self.send(read_request(self.number(), handle, offset, size), what)

    def settle(self, number: int, how: str) -> Asked:
        """Take a request out of flight.

        Raises:
            AssertionError: it is not in flight.
        """
        with self._lock:
            asked = self.asked.pop(number, None)
        assert asked is not None, f"request {number:#x} was {how}, but it is not in flight"
        return asked

    def answer(self, timeout: float | None = 10) -> tuple[Answer, Asked]:
        """The next answer, which stays valid until the next call, and the request it is for.

        Raises:
            TimeoutError: none came.
        """
        self._kernel.settimeout(timeout)
        size = self._kernel.recv_into(self._buffer)
        length, error, number = OUT.unpack_from(self._buffer)
        assert length == size, f"the answer to {number:#x} has {size} bytes and says {length}"
        assert error <= 0, f"the answer to {number:#x} has error {error}"
        data = memoryview(self._buffer)[OUT.size : size]
        assert not (error and len(data)), f"the answer to {number:#x} has an error and data"
        return Answer(number, -error, data), self.settle(number, "answered")

    def popped(self, message: bytes) -> Asked | None:
        """Settle a request that the core queued for Python; it must be as it was sent.

        The core repeats an interrupt, without a number, that it read before its request.
        """
        if message[4:16] == _REPEATED:
            return None
        asked = self.settle(number_of(message), "handed over")
        assert message in (asked.message, asked.message[: len(read_request(0, 0, 0, 0))])
        return asked

    def take_back(self) -> None:
        """Read a request that the core's threads have not read."""
        self._device.settimeout(5)
        self.popped(self._device.recv(MOST))
        self._device.settimeout(None)

    def left(self) -> str:
        """The requests in flight, in words."""
        left = list(self.asked.values())
        some = [(asked.message.hex(), asked.since) for asked in left[:3]]
        return f"{len(left)} requests were never answered: {some}"

    def hang_up(self) -> None:
        """Tell the core's threads that the connection ended."""
        self._kernel.close()

    def close(self) -> None:
        self._kernel.close()
        self._device.close()


def descriptors() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))


def threads() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/task"))


def end_with(run: Callable[[], object]) -> NoReturn:
    """Run a test program to its end. After a failure no leak is looked for: threads still run."""
    try:
        run()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    print("passed", flush=True)
    sys.exit()
