"""The kernel's side is fuzzed: requests that no kernel sends, and floods of those that it may.
Run as: PATH-OF-EXTENSION ROUNDS SEED DIRECTORY.

Each request is answered once, or popped as it was sent. Only a message that is shorter than a
header may end the connection, as it does in libfuse.
"""

from __future__ import annotations

import ctypes
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from tests.native.kernel import (
    FORGET,
    HEADER,
    READ,
    RESENT,
    Connection,
    descriptors,
    end_with,
    header,
    interrupt_request,
    load,
    read_request,
)

_SIZE, _CHUNK = 60_000, 4096  # a larger answer may find no memory in the kernel
_LOCAL, _ABSENT, _CLOSED, _UNKNOWN = 2, 4, 6, (1 << 64) - 1
_ODD = (0, 1, 4095, 4096, _SIZE - 1, _SIZE, 1 << 20, 1 << 31, (1 << 32) - 1)
_HUGE = (*_ODD, (1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1)
_PATIENCE = 60


class Fuzz:
    def __init__(self, core: Any, directory: str, seed: int) -> None:
        self.core = core
        self.rng = random.Random(seed)
        self.connection = Connection()
        self.bytes = self.rng.randbytes(_SIZE)
        self.ways: Counter[str] = Counter()
        core.start(self.connection.device, 4, 2)
        with open(f"{directory}/fuzzed", "w+b") as file:
            file.write(self.bytes)
            file.flush()
            numbers = [core.add(file.fileno(), _SIZE, _CHUNK, True) for _ in range(3)]
        self.absent = numbers[1]
        for handle, number in zip((_LOCAL, _ABSENT, _CLOSED), numbers, strict=True):
            assert core.attach(handle, number)
        assert core.landed(numbers[0], 0, -(-_SIZE // _CHUNK))
        core.shut(numbers[2])

    def number(self) -> int:
        return self.connection.number() | self.rng.choice((0, 0, 0, 1, RESENT))

    def read(self) -> bytes:
        """A READ of any handle, offset and size, more often of those at some edge."""
        rng = self.rng
        handle = rng.choice((_LOCAL, _LOCAL, _ABSENT, _CLOSED, _UNKNOWN, 0))
        offset = rng.choice(
            (*_HUGE, rng.randrange(_SIZE), rng.randrange(_SIZE), rng.getrandbits(64))
        )
        size = rng.choice((*_ODD, rng.randrange(_SIZE), rng.getrandbits(32)))
        return read_request(self.number(), handle, offset, size)

    def message(self) -> bytes:
        rng = self.rng
        way = rng.randrange(12)
        if way == 0:  # cut off, but for its header
            return self.read()[: rng.randrange(HEADER.size, 80)]
        if way == 1:  # longer than it has to be
            return self.read() + rng.randbytes(rng.choice((1, 40, 4096, 50_000)))
        if way == 2:  # says another length than it has
            message = bytearray(self.read())
            message[:4] = rng.choice((0, 1, 39, 81, 1 << 31, (1 << 32) - 1)).to_bytes(4, "little")
            return bytes(message)
        if way == 3:
            return header(rng.getrandbits(32), self.number(), 40) + rng.randbytes(40)
        if way == 4:
            near = self.connection.number() + rng.randrange(-8, 40)
            return interrupt_request(
                self.number(), rng.choice((0, near, near | RESENT, rng.getrandbits(64)))
            )
        if way == 5:
            return header(FORGET, self.number(), 8) + rng.randbytes(8)
        if way == 6:
            return header(READ, self.number(), 0)
        return self.read()

    def settle(self) -> None:
        """Have all that is in flight answered or popped; reads of absent chunks park first."""
        end = time.monotonic() + _PATIENCE
        while self.connection.asked and time.monotonic() < end:
            self.python()
            self.answers()
        assert not self.connection.asked, self.connection.left()
        self.quiet()

    def quiet(self) -> None:
        """Nothing else comes."""
        with suppress(TimeoutError):
            self.connection.answer(0.05)
            raise AssertionError("an answer to nothing")
        assert self.core.pop() == b""

    def python(self) -> None:
        """What Python does: it looks at what is parked, and gives it up in one of three ways."""
        for number, *_ in self.core.parked():
            if self.rng.random() < 0.3:
                self.core.interrupt(number, 4)
        _, wants = self.core.news()
        for number, first, stop, _ in wants:
            assert number == self.absent
            self.rng.choice((self.core.declined, self.fail))(number, first, stop)
        while message := self.core.pop():
            self.connection.popped(message)
            self.ways["popped"] += 1

    def fail(self, number: int, first: int, stop: int) -> None:
        self.core.failed(number, first, stop, 5)

    def answers(self) -> None:
        while True:
            try:
                answer, asked = self.connection.answer(0.01)
            except TimeoutError:
                return
            handle, offset, size = self.asked(asked.message)
            if answer.error:
                assert handle == _ABSENT
                assert answer.error in (4, 5)
                self.ways["failed"] += 1
            else:
                assert handle == _LOCAL or offset >= _SIZE or size == 0
                assert answer.data == self.bytes[offset : offset + size]
                self.ways["right"] += 1

    def asked(self, message: bytes) -> tuple[int, int, int]:
        fields = memoryview(message)[HEADER.size :]
        handle, offset = (int.from_bytes(fields[at : at + 8], "little") for at in (0, 8))
        return handle, offset, int.from_bytes(fields[16:20], "little")

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            for _ in range(100):
                self.connection.send(self.message())
            self.settle()
        self.flood()
        self.interrupted_while_it_is_parked()
        self.too_short()
        assert self.core.statistics()["refused"] == 0
        assert self.core.stop()
        self.connection.close()
        print(dict(self.ways))

    def flood(self) -> None:
        for _ in range(5000):
            self.connection.send(header(FORGET, self.connection.number(), 8) + bytes(8))
        self.settle()

    def interrupted_while_it_is_parked(self) -> None:
        """A resent request is answered by the number that the kernel resent it with."""
        number = self.connection.number() | RESENT
        self.connection.send(read_request(number, _ABSENT, 0, 10))
        while not (parked := self.core.parked()):
            time.sleep(0.001)
        assert parked[0][0] == number & ~RESENT
        assert not self.core.interrupt(number, 4)
        assert self.core.interrupt(number & ~RESENT, 4)
        answer, _ = self.connection.answer()
        assert (answer.number, answer.error) == (number, 4)

    def too_short(self) -> None:
        """The thread that gets it ends; the others go on until the connection ends."""
        self.connection.send_nothing(b"x" * (HEADER.size - 1))
        self.connection.send(self.read())
        self.settle()


def random_calls(core: Any, rng: random.Random, count: int) -> None:
    """Python's side with numbers that are none: nothing is done."""
    calls = (core.shut, core.drop, core.detach, core.epoch)
    for _ in range(count):
        number = rng.choice((0, -1, 1 << 63, rng.getrandbits(64)))
        first, stop = rng.getrandbits(64), rng.getrandbits(64)
        rng.choice(calls)(number)
        assert not core.attach(rng.getrandbits(64), number)
        assert not core.landed(number, first, stop)
        core.cleared(number, first, stop)
        core.declined(number, first, stop)
        core.failed(number, first, stop, 5)
        core.mark(number, first)
        assert not core.interrupt(number, 4)


def main() -> None:
    path, rounds, seed, directory = sys.argv[1:]
    core = load(path)
    ctypes.CDLL(path).faults(50, 100, 50, 50, 0, 0, 0)
    before = descriptors()
    fuzz = Fuzz(core, directory, int(seed))
    random_calls(core, fuzz.rng, 200)
    fuzz.run(int(rounds))
    assert descriptors() == before


if __name__ == "__main__":
    end_with(main)
