"""A command's end of the control socket: one request to the running mount, and its events.

Blocks, and imports no trio: that would be half the time of a command that only asks. The other
end is control.py, which has the protocol.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from axonfs.errors import AxonError
from axonfs.rundir import SOCKET, reachable

if TYPE_CHECKING:
    import trio

MAX_EVENT_BYTES = 256 << 20

Event: TypeAlias = dict[str, Any]


def call(cache: Path, request: Event) -> Iterator[Event]:
    """The events a running mount answers `request` with.

    Raises:
        OSError: no mount answers for this cache (FileNotFoundError, ConnectionRefusedError), or
            it is another user's (PermissionError).
        AxonError: it does not speak as a mount does.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        with reachable(cache / SOCKET) as address:
            connection.connect(address)
        if os.geteuid() != 0 and peer(connection) not in (0, os.geteuid()):
            raise PermissionError("another user listens there")
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as lines:
            while line := lines.readline(MAX_EVENT_BYTES):
                if not line.endswith(b"\n"):
                    raise AxonError("the mount's answer is too long", source=str(cache))
                yield json.loads(line)


def peer(connected: socket.socket | trio.socket.SocketType) -> int:
    """Whose process is at the other end, as the kernel says: a user id."""
    size = struct.calcsize("3i")
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    uid: int = struct.unpack("3i", credentials)[1]
    return uid
