"""What the bytes of a backing file may be when a read is answered: the model of the stress test.

Each chunk has a generation; its bytes tell object, chunk, generation and place. What is written
while a chunk may not be served is a generation of its own that never may (`poison`).
"""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from tests.native.kernel import clock

_POISON = 1 << 23
_FOREVER = 1 << 62


@lru_cache(256)
def content(key: int, chunk: int, generation: int, size: int) -> bytes:
    first = (key << 36 | chunk << 24 | generation) << 16
    return array("Q", range(first, first + (size + 7) // 8)).tobytes()[:size]


def tell(data: bytes, offset: int, chunk_size: int) -> str:
    """What the first word of `data` at `offset` says it is."""
    skip = -(offset % chunk_size) % 8
    word = int.from_bytes(data[skip : skip + 8], "little")
    generation = word >> 16 & 0xFFFFFF
    kind = "poison" if generation & _POISON else "generation"
    place = f"object {word >> 52}, chunk {word >> 40 & 0xFFF}, word {word & 0xFFFF}"
    return f"{place}, {kind} {generation & ~_POISON}" if word else "zeros"


@dataclass(slots=True)
class Served:
    """From when to when a generation may be served, by the clock."""

    generation: int
    since: int
    until: int = _FOREVER


@dataclass
class Backing:
    """A backing file. `lock` is the store's: whoever writes bytes or clears chunks holds it.

    `number` is that of its native object. `failures` are the chunks of which Python said that they
    failed, with the times before and after.
    """

    core: Any
    key: int
    path: str
    size: int
    chunk: int
    number: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    failures: deque[tuple[int, int, int, int]] = field(default_factory=lambda: deque(maxlen=4096))

    def __post_init__(self) -> None:
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(self.fd, self.size)
        self.count = -(-self.size // self.chunk)
        self.present = [False] * self.count
        self._generations = [0] * self.count
        self._served = [deque[Served](maxlen=64) for _ in range(self.count)]

    def bounds(self, chunk: int) -> tuple[int, int]:
        return chunk * self.chunk, min(self.size, (chunk + 1) * self.chunk)

    def _write(self, chunk: int, generation: int) -> None:
        start, stop = self.bounds(chunk)
        os.pwrite(self.fd, content(self.key, chunk, generation, stop - start), start)

    def add(self) -> None:
        """Make it a native object, and serve what is there."""
        with self.lock:
            self.number = self.core.add(self.fd, self.size, self.chunk, False)
            assert self.number, "too many objects"
        for chunk in range(self.count):
            if self.present[chunk]:
                self.serve(chunk, chunk + 1)

    def land(self, first: int, stop: int, *, told: bool = True) -> None:
        """Write chunks that are absent; tell the core of all, unless somebody will `serve` them."""
        with self.lock:
            for chunk in range(first, stop):
                if not self.present[chunk]:
                    self._generations[chunk] += 1
                    self._write(chunk, self._generations[chunk])
                    self._served[chunk].append(Served(self._generations[chunk], clock()))
                    self.present[chunk] = True
            if told:
                self.core.landed(self.number, first, stop)

    def serve(self, first: int, stop: int, pause: float = 0.0) -> bool:
        """Have chunks served if all are there, else declined, as axonfs/fuse/reads.py does.

        Args:
            pause: in seconds, in which others may clear them.
        """
        number = self.number
        epoch = self.core.epoch(number)
        right = all(self.present[first:stop])
        time.sleep(pause)
        if right and self.core.landed(number, first, stop, epoch):
            return True
        self.core.declined(number, first, stop)
        return False

    def clear(self, first: int, stop: int, *, zeros: bool) -> None:
        """Take chunks away, and change their bytes."""
        with self.lock:
            self.present[first:stop] = [False] * (stop - first)  # `serve` looks after the epoch
            self.core.cleared(self.number, first, stop)
            self._gone(first, stop)
            for chunk in range(first, stop):
                start, end = self.bounds(chunk)
                if zeros:
                    os.pwrite(self.fd, bytes(end - start), start)
                else:
                    self._write(chunk, _POISON | self._generations[chunk])

    def _gone(self, first: int, stop: int) -> None:
        now = clock()
        for chunk in range(first, stop):
            if self._served[chunk] and self._served[chunk][-1].until == _FOREVER:
                self._served[chunk][-1].until = now

    def fail(self, first: int, stop: int, error: int) -> None:
        before = clock()
        self.failures.append((first, stop, before, _FOREVER))
        self.core.failed(self.number, first, stop, error)
        self.failures.append((first, stop, before, clock()))
        self.failures.remove((first, stop, before, _FOREVER))

    def shut(self) -> None:
        self.core.shut(self.number)

    def drop(self) -> None:
        self.core.drop(self.number)

    def failed(self, offset: int, size: int, since: int) -> bool:
        """Whether an error may answer a read that was sent at `since`."""
        return any(
            first * self.chunk < offset + size and offset < stop * self.chunk and until > since
            for first, stop, _, until in list(self.failures)
        )

    def check(self, data: memoryview, offset: int, size: int, since: int) -> None:
        """Compare the answer to a read that was sent at `since` and came just now.

        Raises:
            AssertionError: the bytes may not be served, or were not there all at one time.
        """
        now = clock()
        expected = max(0, min(size, self.size - offset))
        assert len(data) == expected, f"{len(data)} bytes at {offset}, not {expected}"
        at, latest, earliest = offset, since, now
        while at < offset + expected:
            chunk = at // self.chunk
            start, end = self.bounds(chunk)
            part = data[at - offset : min(end, offset + expected) - offset]
            served = self._matching(chunk, part, at - start, since)
            if served is None:
                raise AssertionError(self._complaint(chunk, bytes(part), at, since, now))
            latest, earliest = max(latest, served.since), min(earliest, served.until)
            at = end
        assert latest <= earliest, f"{len(data)} bytes at {offset} were not there at one time"

    def _matching(self, chunk: int, part: memoryview, skip: int, since: int) -> Served | None:
        """When the bytes might be served; of a few bytes, several generations are alike."""
        start, end = self.bounds(chunk)
        found: Served | None = None
        for served in reversed(list(self._served[chunk])):
            if served.until < since:
                break
            whole = memoryview(content(self.key, chunk, served.generation, end - start))
            if part == whole[skip : skip + len(part)]:
                until = found.until if found else served.until
                found = Served(served.generation, served.since, until)
        return found

    def _complaint(self, chunk: int, part: bytes, at: int, since: int, now: int) -> str:
        first = tell(part, at, self.chunk)
        last = tell(part[-16:], at + len(part) - 16, self.chunk) if len(part) > 32 else first
        history = [(s.generation, s.since, s.until) for s in list(self._served[chunk])[-4:]]
        return (
            f"wrong bytes of object {self.key}, chunk {chunk} at {at}: they begin as {first} and "
            f"end as {last}; asked at {since}, answered at {now}; of generations {history}"
        )
