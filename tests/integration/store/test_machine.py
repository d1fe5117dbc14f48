"""The store against a dictionary: any order of landing, losing, evicting, crashing, reopening."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from axonfs.errors import BusyError
from axonfs.names import Spec
from axonfs.ranges import Range
from axonfs.store import Pin, Store, StoredObject
from tests.support.stores import BOOT, CHUNK, Sample, sample

SAMPLES = [sample(3 * CHUNK + 7, seed=1), sample(130 * CHUNK, seed=2), sample(CHUNK, seed=3)]
WHICH = st.integers(0, len(SAMPLES) - 1)
NUMBER = st.integers(0, 129)
SPEC = Spec("a", "b", "1")


class StoreMachine(RuleBasedStateMachine):
    """`local` is what must be there; `stale` the part of it that needs a check first."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.boot = BOOT
        self.store = Store.open(self.directory, boot_id=self.boot)
        self.local: list[set[int]] = [set() for _ in SAMPLES]
        self.stale: list[set[int]] = [set() for _ in SAMPLES]
        self.wrong: list[set[int]] = [set() for _ in SAMPLES]
        self.held: dict[int, StoredObject] = {}
        self.pinned: set[int] = set()

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)

    def open(self, which: int) -> StoredObject:
        """Held until released."""
        if which not in self.held:
            self.held[which] = self.store.object(SAMPLES[which].entry)
            self.held[which].hold()
        return self.held[which]

    @rule(which=WHICH, number=NUMBER)
    def land(self, which: int, number: int) -> None:
        stored, what = self.open(which), SAMPLES[which]
        chunk = number % stored.count
        stored.land(chunk, what.chunk(chunk))
        self.local[which].add(chunk)
        self.stale[which].discard(chunk)
        self.wrong[which].discard(chunk)

    @rule(which=WHICH, number=NUMBER)
    def check(self, which: int, number: int) -> None:
        stored, what = self.open(which), SAMPLES[which]
        chunk = number % stored.count
        buffer = memoryview(bytearray(CHUNK))
        right = stored.check(chunk, buffer, what.table.right)
        assert bool(right) is (chunk in self.local[which] - self.wrong[which])
        assert (right is None) is (chunk not in self.local[which])
        self.stale[which].discard(chunk)
        if not right:
            self.local[which].discard(chunk)
            self.wrong[which].discard(chunk)
        else:
            assert buffer[: len(what.chunk(chunk))] == what.chunk(chunk)

    @rule(which=WHICH, number=NUMBER)
    def spoil(self, which: int, number: int) -> None:
        """A chunk not checked yet has lost bytes, as a crash of the machine leaves it."""
        stored = self.open(which)
        chunk = number % stored.count
        if chunk in self.stale[which]:
            os.pwrite(stored.opened(), b"spoilt", chunk * CHUNK)
            self.wrong[which].add(chunk)

    @rule(which=WHICH, start=NUMBER, length=NUMBER)
    def punch(self, which: int, start: int, length: int) -> None:
        stored = self.open(which)
        start = start % stored.count
        stop = min(start + length, stored.count)
        gone = self.local[which] & {*range(start, stop)}
        assert stored.punch(start, stop) == size_of(SAMPLES[which], gone)
        self.forget(which, gone)

    @rule(which=WHICH)
    def discard(self, which: int) -> None:
        self.open(which).discard()
        self.forget(which, set(self.local[which]))

    @rule(which=WHICH)
    def release(self, which: int) -> None:
        if which in self.held:
            self.held.pop(which).release()

    @rule(which=WHICH)
    def drop(self, which: int) -> None:
        if which in self.held:
            with pytest.raises(BusyError):
                self.store.drop(SAMPLES[which].digest)
            return
        freed = self.store.drop(SAMPLES[which].digest)
        assert freed == size_of(SAMPLES[which], self.local[which])
        self.forget(which, set(self.local[which]))

    @rule(which=WHICH)
    def pin(self, which: int) -> None:
        self.pinned ^= {which}
        digests = tuple(SAMPLES[each].digest for each in sorted(self.pinned))
        self.store.put_pin(Pin(SPEC, "0" * 64, digests, 0.0, False))

    @rule(limit=st.integers(0, 140 * CHUNK))
    def evict(self, limit: int) -> None:
        done = self.store.evict(limit)
        for which, what in enumerate(SAMPLES):
            if what.digest in done.digests:
                assert which not in self.pinned
                assert which not in self.held
                self.forget(which, set(self.local[which]))
        free = [
            which
            for which in range(len(SAMPLES))
            if self.local[which] and which not in self.held and which not in self.pinned
        ]
        assert done.short_by == max(0, self.store.usage() - limit)
        assert done.short_by == 0 or not free

    @rule(boot=st.booleans(), lose_index=st.booleans())
    def reopen(self, boot: bool, lose_index: bool) -> None:
        for which in list(self.held):
            self.release(which)
        self.store.close()
        if boot:
            self.boot = str(uuid.uuid4())  # no boot has the id of an earlier one
        if lose_index:
            self.pinned.clear()
            for path in self.directory.glob("index.lmdb*"):
                path.unlink()
        if boot or lose_index:
            self.stale = [set(chunks) for chunks in self.local]
        self.store = Store.open(self.directory, boot_id=self.boot)
        if lose_index:  # strays are counted by blocks until they are claimed
            for which in range(len(SAMPLES)):
                self.open(which)

    def forget(self, which: int, chunks: set[int]) -> None:
        for state in (self.local, self.stale, self.wrong):
            state[which] -= chunks

    @invariant()
    def usage_is_exact(self) -> None:
        expected = [size_of(*pair) for pair in zip(SAMPLES, self.local, strict=True)]
        assert self.store.usage() == sum(expected)
        for what, size in zip(SAMPLES, expected, strict=True):
            info = self.store.peek(what.digest)
            assert (info.present_bytes if info else 0) == size

    @invariant()
    def bits_are_exact(self) -> None:
        for which, stored in self.held.items():
            everything = set(range(stored.count))
            missing = members(stored.missing(0, stored.count))
            assert everything - missing == self.local[which]
            assert members(stored.unchecked(0, stored.count)) == self.stale[which]
            assert stored.complete is (self.local[which] == everything)

    @invariant()
    @precondition(lambda self: self.held)
    def usable_bytes_are_right(self) -> None:
        for which, stored in self.held.items():
            for chunk in list(self.local[which] - self.stale[which])[:3]:
                assert stored.present(chunk, chunk + 1)
                expected = SAMPLES[which].chunk(chunk)
                assert os.pread(stored.opened(), len(expected), chunk * CHUNK) == expected


def members(found: list[Range]) -> set[int]:
    return {number for start, stop in found for number in range(start, stop)}


def size_of(what: Sample, chunks: set[int]) -> int:
    return sum(len(what.chunk(chunk)) for chunk in chunks)


TestStoreMachine = StoreMachine.TestCase
# Each reopening starts a child process; the files are on a disk.
TestStoreMachine.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
