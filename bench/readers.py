"""Ways to read a file: each reads to the end, or a fixed number of times."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from axonfs import memory
from bench.fixtures import MIB

PAGE = 4096
RANDOM_READS = 20_000
THREADS = 8

Reader = Callable[[Path], None]


def sequential(path: Path) -> None:
    """Read like dd bs=1M, without the start of a process."""
    buffer = bytearray(MIB)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def first_page(path: Path) -> None:
    with open(path, "rb", buffering=0) as file:
        file.read(PAGE)


def dd(path: Path) -> None:
    """Read with dd in another process, which does not share this process's GIL."""
    subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"], check=True)


def at_random(path: Path, reads: int = RANDOM_READS) -> None:
    """Read 4 KiB at random offsets, the same offsets each time."""
    places, buffer = random.Random(0), bytearray(PAGE)
    pages = path.stat().st_size // PAGE
    with open(path, "rb", buffering=0) as file:
        for _ in range(reads):
            os.preadv(file.fileno(), [buffer], places.randrange(pages) * PAGE)


def direct(path: Path) -> None:
    """Read with O_DIRECT, one MiB at a time.

    Into one large page: a disk takes twice as long for a MiB that lies in 256 places of memory,
    and whether it does is chance.
    """
    buffer = memory.buffer(memory.LARGE_PAGE)[:MIB]
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        while os.readv(fd, [buffer]):
            pass
    finally:
        os.close(fd)


def sweep(path: Path) -> None:
    """Read one byte of every page of a mapping, in order, like a loader of tensors."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        for offset in range(0, len(mapping), 64 * MIB):
            mapping[offset : offset + 64 * MIB : PAGE]


def threads(path: Path) -> None:
    """Read with eight threads on one descriptor, each an eighth of the file, a MiB at a time."""
    size = path.stat().st_size
    with open(path, "rb", buffering=0) as file:
        step = -(-size // THREADS)
        running = [
            threading.Thread(target=_part, args=(file.fileno(), at, min(at + step, size)))
            for at in range(0, size, step)
        ]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()


def _part(fd: int, start: int, stop: int) -> None:
    buffer = bytearray(MIB)
    for offset in range(start, stop, MIB):
        os.preadv(fd, [memoryview(buffer)[: stop - offset]], offset)


def together(reader: Reader, files: Sequence[Path], readers: int) -> None:
    """Read every file once with `readers` processes, each its share; one reader is this process."""
    if readers == 1:
        _each(reader, files)
        return
    forking = multiprocessing.get_context("fork")
    shares = [files[at::readers] for at in range(readers)]
    running = [forking.Process(target=_each, args=(reader, share)) for share in shares]
    try:
        for process in running:
            process.start()
        for process in running:
            process.join()
    finally:
        for process in running:
            process.kill()
    if any(process.exitcode for process in running):
        raise RuntimeError("a reader failed")


def _each(reader: Reader, files: Iterable[Path]) -> None:
    for file in files:
        reader(file)


def several(readers: int) -> str:
    """How the table names a number of readers: one goes without saying."""
    return f", {readers} readers" if readers > 1 else ""


def ways_to_read(files: int) -> dict[str, Reader]:
    """The ways to read a model of so many files, by name."""
    return {
        "1 MiB reads": sequential,
        "4 KiB random": partial(at_random, reads=RANDOM_READS // files),
        "O_DIRECT": direct,
        "mmap sweep": sweep,
        "8 threads, one fd": threads,
    }
