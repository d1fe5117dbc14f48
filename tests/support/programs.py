"""Servers that are programs of their own: where they are, and when they listen."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

UP_SECONDS = 30.0


def executable(name: str) -> str:
    """The program beside this interpreter, else the one that is found as usual."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name) or name


def until_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until `process` listens on a port of loopback.

    Raises:
        RuntimeError: it ended, or takes too long; the message has the last line of its log.
    """
    deadline = time.monotonic() + UP_SECONDS
    while not _listens(port):
        if process.poll() is not None or time.monotonic() > deadline:
            last = log.read_text(errors="replace").splitlines()[-1:]
            raise RuntimeError(f"a server did not start: {''.join(last)}")
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
