"""Notifies systemd of a service's state, and has it keep descriptors.

Imports nothing of the package. Does nothing in a process that systemd did not start. Blocking.
Source: sd_notify(3), sd_listen_fds(3).
"""

from __future__ import annotations

import array
import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)

_FIRST = 3


def stored() -> dict[str, int]:
    """The descriptors that systemd kept from an earlier run, by name. The first call gets them."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    found = {}
    for number, name in zip(range(_FIRST, _FIRST + int(count)), names, strict=False):
        os.set_inheritable(number, False)
        found[name] = number
    return found


def notify(state: str, descriptors: Mapping[str, int] | None = None) -> None:
    """Tell systemd `state` (lines of NAME=VALUE)."""
    _send(state, [])
    for name, descriptor in (descriptors or {}).items():
        _send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", [descriptor])


def drop(names: list[str]) -> None:
    """Have systemd forget descriptors that it keeps."""
    for name in names:
        _send(f"FDSTOREREMOVE=1\nFDNAME={name}", [])


def _send(state: str, descriptors: list[int]) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            # A leading @ stands for the NUL of an abstract name.
            sock.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
            sock.sendmsg([state.encode()], rights if descriptors else [])
    except OSError as exc:
        log.warning("cannot notify systemd: %s", exc)
