"""Plays the kernel to a file system of pyfuse3 in a process of its own, over a socket."""

from __future__ import annotations

import subprocess
import sys

_BEGIN = """
import errno, os, socket, struct, threading, trio
from axonfs.fuse import openreply
import pyfuse3
"""
_END = """
async def main():
    kernel, device = socket.socketpair(*SOCKETS)
    pyfuse3.init(Operations(), f"/dev/fd/{device.fileno()}", set())
    threading.Thread(target=play, args=[kernel], daemon=True).start()
    await pyfuse3.main()

assert openreply.UNAVAILABLE is None, openreply.UNAVAILABLE
trio.run(main)
"""


def play(program: str) -> None:
    """Run `program`, which defines the file system's `Operations`, the address family and type of
    the `SOCKETS`, and `play(kernel)`. The thread that runs `play` prints "answered" at its end.
    """
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN + program + _END],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "answered\n"), done.stderr
