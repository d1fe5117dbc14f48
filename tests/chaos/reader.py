"""Reads files of a mount again and again, and compares each byte with the plain files.

Run as a program: KIND SEED CHUNK ERRNOS SECONDS MOUNTED=PLAIN…, where KIND is read (through the
page cache, which is emptied before), direct (O_DIRECT) or mmap (each mapping in a child). Reads
stretches of whole chunks. Prints `chunk FILE NUMBER` for each that was right, and `errno NUMBER`
for an errno out of ERRNOS (numbers joined by commas; SIGBUS stands for all of them). Ends with 0
when its standard input ends; with 1 and a line if bytes or an errno were wrong, or if one read
took longer than SECONDS.
"""

from __future__ import annotations

import mmap
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Stretch(NamedTuple):
    """Some chunks of a file."""

    number: int
    mounted: str
    plain: mmap.mmap
    chunks: range


class Reader:
    """One way to read."""

    def __init__(self, kind: str, chunk: int, errnos: frozenset[int], seconds: float) -> None:
        self._read: Callable[[Stretch], None] = getattr(self, f"_{kind}")
        self._chunk = chunk
        self._errnos = errnos
        self._seconds = seconds
        self._buffer = mmap.mmap(-1, chunk)

    def read(self, stretch: Stretch) -> None:
        """Read a stretch, and say what came of it."""
        try:
            self._read(stretch)
        except OSError as exc:
            if exc.errno not in self._errnos:
                sys.exit(f"{stretch.mounted}: {exc}")
            self._say(f"errno {exc.errno}")

    def _direct(self, stretch: Stretch) -> None:
        self._through(stretch, os.O_DIRECT)

    def _through(self, stretch: Stretch, flags: int = 0) -> None:
        fd = os.open(stretch.mounted, os.O_RDONLY | flags)
        try:
            # What the page cache has would be asked for no more.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            for chunk in stretch.chunks:
                with self._in_time(stretch.mounted):
                    count = os.preadv(fd, [self._buffer], chunk * self._chunk)
                self._compare(stretch, chunk, self._buffer[:count])
        finally:
            os.close(fd)

    def _mmap(self, stretch: Stretch) -> None:
        child = os.fork()
        if child == 0:
            self._map(stretch)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGBUS and self._errnos:
            self._say("errno 0")
        elif code:
            sys.exit(f"{stretch.mounted}: the child that maps it ended with {code}")

    def _map(self, stretch: Stretch) -> None:
        """In the child: a page fault that fails is its end."""
        try:
            with open(stretch.mounted, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        except OSError as exc:
            if exc.errno in self._errnos:
                self._say(f"errno {exc.errno}")
                return
            os.write(2, f"{stretch.mounted}: {exc}\n".encode())
            os._exit(1)
        for chunk in stretch.chunks:
            with self._in_time(stretch.mounted):
                found = mapping[chunk * self._chunk : (chunk + 1) * self._chunk]
            self._compare(stretch, chunk, found)

    def _in_time(self, name: str) -> _InTime:
        return _InTime(name, self._seconds)

    def _compare(self, stretch: Stretch, chunk: int, found: bytes) -> None:
        if found != stretch.plain[chunk * self._chunk : (chunk + 1) * self._chunk]:
            os.write(2, f"{stretch.mounted} has other bytes in chunk {chunk}\n".encode())
            os._exit(1)
        self._say(f"chunk {stretch.number} {chunk}")

    def _say(self, line: str) -> None:
        os.write(1, f"{line}\n".encode())


class _InTime:
    """A read that must not take longer than `seconds`."""

    def __init__(self, name: str, seconds: float) -> None:
        self._name, self._seconds = name, seconds

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        waited = time.monotonic() - self._began
        if waited > self._seconds:
            os.write(2, f"{self._name}: a read took {waited:.1f} s\n".encode())
            os._exit(1)


def stretches(chance: random.Random, chunk: int, pairs: tuple[str, ...]) -> Iterator[Stretch]:
    """Chunks in a row and chunks here and there, of any file, without an end."""
    files = [pair.partition("=") for pair in pairs]
    plain = [mapped(path) for _, _, path in files]
    while True:
        number = chance.randrange(len(files))
        count = -(-len(plain[number]) // chunk)
        first, many = chance.randrange(count), chance.choice((1, 1, 12))
        chunks = range(first, min(first + many, count))
        yield Stretch(number, files[number][0], plain[number], chunks)


def mapped(path: str) -> mmap.mmap:
    """A plain file; mapped, since 64 readers share its pages so."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)


def main(kind: str, seed: str, chunk: str, errnos: str, seconds: str, *pairs: str) -> None:
    tolerated = frozenset(map(int, filter(None, errnos.split(","))))
    reader = Reader("through" if kind == "read" else kind, int(chunk), tolerated, float(seconds))
    for stretch in stretches(random.Random(seed), int(chunk), pairs):
        reader.read(stretch)
        if select.select([0], [], [], 0)[0]:
            break


if __name__ == "__main__":
    main(*sys.argv[1:])
