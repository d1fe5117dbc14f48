"""Reads go in by the thousands while threads land, clear, fail, decline, shut, drop, attach, detach
and interrupt; a model checks every answer. Run as: PATH-OF-EXTENSION SECONDS SEED DIRECTORY.

Python's part is played as axonfs/fuse/reads.py plays it: each chunk that parked reads want lands,
fails or is declined. So no request may be in flight at the end.
"""

from __future__ import annotations

import ctypes
import errno
import json
import queue
import random
import select
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.native.kernel import (
    FORGET,
    GETATTR,
    HEADER,
    Answer,
    Asked,
    Connection,
    end_with,
    header,
    load,
    read_request,
)
from tests.native.model import Backing

_WINDOW = 96  # requests in flight
_HANDLES = 4  # of each file
_UNKNOWN = 1 << 40  # a handle that is never attached
_MOST = (2 << 20) - 4096  # a larger read is Python's
# Size and chunk size: with a short last chunk, with chunks of no power of two, and a large one.
_FILES = ((300_000, 4096), (90_001, 5000), (1 << 20, 16384))
_PATIENCE = 20
_FINISHED = struct.Struct("=QQQQQIIiI")  # of operations.c


@dataclass(frozen=True, slots=True)
class Read:
    """A read of a file's handle."""

    backing: Backing
    offset: int
    size: int


class World:
    """All that goes on; `failure` is the first thing that went wrong.

    Once it is `calm`, chunks land only for reads that want them, none is cleared, and no read is
    interrupted. Once it is `silent`, no request is sent.
    """

    def __init__(self, core: Any, directory: str, seed: int, *, short_of_memory: bool) -> None:
        self.core = core
        self.connection = Connection()
        self.news = core.start(self.connection.device, 3, 3)
        self.files = [
            Backing(core, key, f"{directory}/{key}", size, chunk)
            for key, (size, chunk) in enumerate(_FILES, 1)
        ]
        self.stopping = self.calm = self.silent = False
        self.failure: BaseException | None = None
        self.counts = dict.fromkeys(("right", "popped", "failed", "interrupted", "no_memory"), 0)
        self._short_of_memory = short_of_memory
        self._seed = seed
        self._wants: queue.SimpleQueue[tuple[Backing, int, int]] = queue.SimpleQueue()
        self.answers: Counter[tuple[int, ...]] = Counter()
        self.told: Counter[tuple[int, ...]] = Counter()
        core.listen(True)
        self._told_interrupted: set[int] = set()
        self._seen_interrupted: set[int] = set()
        for file in self.files:
            file.add()
            for handle in self.handles(file):
                core.attach(handle, file.number)

    def handles(self, file: Backing) -> range:
        return range(file.key * 64, file.key * 64 + _HANDLES)

    def thread(
        self, step: Callable[[random.Random], object], pause: float = 0.0
    ) -> threading.Thread:
        """A thread that does a step again and again until the end."""
        rng = random.Random(f"{self._seed} {step}")

        def run() -> None:
            try:
                while not self.stopping:
                    step(rng)
                    time.sleep(pause * rng.random())
            except BaseException as exc:
                self.failure = self.failure or exc
                self.stopping = True

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    # The kernel.

    def send(self, rng: random.Random) -> None:
        if self.silent or len(self.connection.asked) >= _WINDOW:
            time.sleep(0.001)
            return
        file = rng.choice(self.files)
        if rng.random() < 0.03:
            opcode = rng.choice((FORGET, GETATTR, 4000))
            body = rng.randbytes(rng.randrange(200))
            self.connection.send(header(opcode, self.connection.number(), len(body)) + body)
            return
        handle = rng.choice(self.handles(file)) if rng.random() < 0.98 else _UNKNOWN
        offset, size = self._place(file, rng)
        message = read_request(self.connection.number(), handle, offset, size)
        self.connection.send(message, Read(file, offset, size))

    def _place(self, file: Backing, rng: random.Random) -> tuple[int, int]:
        most = self.connection.largest
        size = rng.choice((1, 512, file.chunk, 2 * file.chunk, rng.randrange(1, most), most))
        offset = rng.choice((rng.randrange(file.size), rng.randrange(file.count) * file.chunk))
        if rng.random() < 0.05:
            offset = rng.choice((file.size - 1, file.size, (1 << 63) - 1, (1 << 64) - 1))
        if rng.random() < 0.02:
            size = rng.choice((0, _MOST + 1, (1 << 32) - 1))
        return offset, min(size, most) if size <= _MOST else size

    def receive(self, rng: random.Random) -> None:
        try:
            self._check(*self.connection.answer(0.05))
        except TimeoutError:
            return

    def _check(self, answer: Answer, asked: Asked) -> None:
        read = asked.what
        assert isinstance(read, Read), "the core answered a request that is no read"
        self.answers[struct.unpack_from("=QQ", asked.message, HEADER.size)] += 1
        if not answer.error:
            read.backing.check(answer.data, read.offset, read.size, asked.since)
            self.counts["right"] += 1
        elif answer.error == errno.EINTR:
            self._seen_interrupted.add(answer.number)
            self.counts["interrupted"] += 1
        elif answer.error == errno.EIO:
            assert read.backing.failed(read.offset, read.size, asked.since), (
                "EIO, but nothing failed"
            )
            self.counts["failed"] += 1
        else:
            assert answer.error == errno.ENOMEM, f"error {answer.error}"
            assert self._short_of_memory, "ENOMEM"
            self.counts["no_memory"] += 1

    # Python's part.

    def pop(self, rng: random.Random) -> None:
        while message := self.core.pop():
            self.connection.popped(message)
            self.counts["popped"] += 1
        time.sleep(0.001)

    def take_news(self, rng: random.Random) -> None:
        if not select.select([self.news], [], [], 0.05)[0]:
            return
        reads, wants = self.core.news()
        for handle, start, stop, count in reads:
            assert any(handle in self.handles(file) for file in self.files), f"handle {handle}"
            assert start < stop, (start, stop)
            assert count > 0
            self.core.mark(handle, rng.choice((stop, 0, 1 << 62)))
        known = {file.number: file for file in self.files}
        for number, first, stop, _ in wants:
            if file := known.get(number):
                assert 0 <= first < stop <= file.count, (first, stop)
                self._wants.put((file, first, stop))

    def bring(self, rng: random.Random) -> None:
        try:
            file, first, stop = self._wants.get(timeout=0.05)
        except queue.Empty:
            return
        way = rng.random()
        if way < 0.05 and not self.calm:
            file.fail(first, stop, errno.EIO)
        elif way < 0.08 and not self.calm:
            self.core.declined(file.number, first, stop)
        else:
            file.land(first, stop, told=way < 0.5)
            file.serve(first, stop, rng.choice((0.0, 0.002 * rng.random())))

    def interrupt(self, rng: random.Random) -> None:
        if not self.calm and (numbers := list(self.connection.asked)):
            number = rng.choice(numbers)
            if self.core.interrupt(number, errno.EINTR):
                self._told_interrupted.add(number)
            assert not self.core.interrupt(number + 1, errno.EINTR)

    def look_at_parked(self, rng: random.Random) -> None:
        found, at_disk = [], []
        with suppress(MemoryError):  # an injected one
            found, at_disk = self.core.parked(), self.core.at_disk()
        for number, thread, inode, _, flags, handle, size, since in found:
            told = number % 2, thread, inode, flags
            assert told == (0, 1, 1, 0), told
            assert handle >= 64
            assert size > 0
            assert since > 0
        for _, thread, inode, *_ in at_disk:
            assert (thread, inode) == (1, 1)

    def listen(self, rng: random.Random) -> None:
        reads, left_out = self.core.finished()
        assert left_out == 0
        for read in _FINISHED.iter_unpack(reads):
            self.told[read[3:5]] += 1  # by handle and offset

    # What the store and the mount do by themselves.

    def _run(self, file: Backing, rng: random.Random) -> tuple[int, int]:
        first = rng.randrange(file.count)
        return first, rng.randrange(first, min(file.count, first + 4)) + 1

    def land(self, rng: random.Random) -> None:
        if not self.calm:  # then only what reads want is fetched
            file = rng.choice(self.files)
            file.land(*self._run(file, rng))

    def foresee(self, rng: random.Random) -> None:
        """Say that chunks are coming, or no longer; it need not be true."""
        if self.calm:
            return
        file = rng.choice(self.files)
        # Rarely given up: that has all reads told anew, which would hide that they were not.
        tell = self.core.given_up if rng.random() < 0.02 else self.core.coming
        tell(file.number, *self._run(file, rng))

    def clear(self, rng: random.Random) -> None:
        if not self.calm:
            file = rng.choice(self.files)
            file.clear(*self._run(file, rng), zeros=rng.random() < 0.3)

    def replace(self, rng: random.Random) -> None:
        """Drop an object, and make another one of its file; before that only if it was shut."""
        if self.calm:
            return
        file = rng.choice(self.files)
        before = file.number
        if rng.random() < 0.5:
            file.drop()
            self._number_again(file)
        else:
            file.shut()
            time.sleep(rng.random() * 0.01)
            self._number_again(file)
            self.core.drop(before)

    def _number_again(self, file: Backing) -> None:
        file.add()
        for handle in self.handles(file):
            self.core.detach(handle)
            self.core.attach(handle, file.number)

    def reattach(self, rng: random.Random) -> None:
        file = rng.choice(self.files)
        handle = rng.choice(self.handles(file))
        self.core.detach(handle)
        self.core.attach(handle, file.number)

    # The beginning and the end.

    def run(self, seconds: float) -> None:
        steps: list[tuple[Callable[[random.Random], object], float]] = [
            (self.send, 0.0),
            (self.receive, 0.0),
            (self.pop, 0.0),
            (self.take_news, 0.0),
            (self.bring, 0.001),
            (self.bring, 0.003),
            (self.land, 0.02),
            (self.foresee, 0.002),
            (self.clear, 0.002),
            (self.clear, 0.002),
            (self.interrupt, 0.01),
            (self.look_at_parked, 0.05),
            (self.listen, 0.02),
            (self.replace, 0.1),
            (self.reattach, 0.01),
        ]
        threads = [self.thread(step, pause) for step, pause in steps]
        self._wait(lambda: False, 0.9 * seconds)
        self.calm = True
        self._wait(lambda: False, 0.1 * seconds)
        self.silent = True
        self._wait(lambda: not self.connection.asked, _PATIENCE)
        self.stopping = True
        for thread in threads:
            thread.join(_PATIENCE)
        if self.failure:
            raise self.failure
        self._check_end()

    def _wait(self, done: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.stopping and not done() and time.monotonic() < end:
            time.sleep(0.01)

    def _check_end(self) -> None:
        done = self.core.statistics()
        assert not self.connection.asked, f"{self.connection.left()}; {done}"
        assert self._seen_interrupted == self._told_interrupted
        assert self._short_of_memory or done["refused"] == 0, done
        assert self.counts["right"] > 0
        assert self.core.stop()
        self.listen(random.Random())
        assert self.told == self.answers, "what was answered is not what a listener was told"
        cache, cold, _ = self.core.latencies()
        assert sum(cache[1]) + sum(cold[1]) == self.answers.total()
        self.connection.close()
        print(json.dumps({**self.counts, "retried": done["retried"]}))


def main() -> None:
    path, seconds, seed, directory = sys.argv[1:]
    core = load(path)
    controls = ctypes.CDLL(path)
    rng = random.Random(seed)
    short_of_memory = rng.random() < 0.5
    sys.setswitchinterval(0.0005)
    controls.faults(200, 1000, 50, 50, 100, 0, 10 if short_of_memory else 0)
    world = World(core, directory, int(seed), short_of_memory=short_of_memory)
    world.run(float(seconds))


if __name__ == "__main__":
    end_with(main)
