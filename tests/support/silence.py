"""Programs that read or look up, in threads, and how each ended; and places that do not answer."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class End:
    """How one ended: the seconds that it took, and its errno, 0 for success."""

    seconds: float
    errno: int


def timed(act: Callable[[], object]) -> End:
    """Call `act`; how it ended."""
    began = time.monotonic()
    try:
        act()
    except OSError as exc:
        return End(time.monotonic() - began, exc.errno or -1)
    return End(time.monotonic() - began, 0)


@dataclass
class Programs:
    """Threads that each do one thing that may wait."""

    ends: list[End] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, act: Callable[[], object]) -> None:
        thread = threading.Thread(target=lambda: self.ends.append(timed(act)), daemon=True)
        thread.start()
        self._threads.append(thread)

    def join(self, seconds: float) -> None:
        """Wait for all of them."""
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0))
            assert not thread.is_alive(), "one of them still waits"


def dropped(path: Path, size: int = 1 << 20) -> bytes:
    """The beginning of a file, of which the kernel keeps no page before that."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)


@contextmanager
def unanswered() -> Iterator[str]:
    """The URL of a server that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1024)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
