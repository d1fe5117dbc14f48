"""The parts of an object that is uploaded in several requests. Blocking; any thread."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, wait
from typing import TypeVar

from axonfs.errors import AxonError
from axonfs.formats.chunktable import ChunkTable
from axonfs.futures import until_one_fails
from axonfs.ranges import Range

T = TypeVar("T")

PART_BYTES = 16 << 20  # at least; more for objects of very many such parts
AT_ONCE = 8  # parts of all uploads that are sent at the same time; each takes its size in memory


def part_size(table: ChunkTable, most: int) -> int:
    """The size of the parts of an object, a multiple of its chunks', if `most` parts may be."""
    size = max(PART_BYTES, table.chunk_size)  # both are powers of two
    while table.size > size * most:
        size *= 2
    return size


def parts_of(table: ChunkTable, most: int) -> list[Range]:
    """The parts of an object; each begins at a chunk."""
    size = part_size(table, most)
    return [Range(at, min(at + size, table.size)) for at in range(0, table.size, size)]


def read_part(fd: int, part: Range, table: ChunkTable) -> bytes:
    """The bytes of a part, from the open file `fd`.

    Raises:
        AxonError: they are not those of the table.
    """
    body = os.pread(fd, part.size, part.start)
    while len(body) < part.size and (more := _more(fd, part, len(body))):
        body += more
    view, chunk = memoryview(body), table.chunk_size
    if len(body) < part.size or not all(
        table.right((part.start + at) // chunk, view[at : at + chunk])
        for at in range(0, part.size, chunk)
    ):
        hint = "publish again once nothing writes to it"
        raise AxonError("the file changed while it was read", hint=hint)
    return body


def _more(fd: int, part: Range, filled: int) -> bytes:
    return os.pread(fd, part.size - filled, part.start + filled)


def results(jobs: Sequence[Future[T]]) -> list[T]:
    """The results of all jobs; after the first exception no other job begins."""
    try:
        until_one_fails(jobs)
        failed = [job for job in jobs if job.done() and job.exception()]
        return [job.result() for job in failed or jobs]
    finally:
        for job in jobs:
            job.cancel()
        wait(jobs)  # they use the file
