"""Objects without a chunk table of a manifest, in any order of events: verified bytes are right."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from axonfs.errors import CorruptError
from axonfs.fetch import hashing
from axonfs.fetch.filling import Filling
from axonfs.fetch.hashing import Hashing
from axonfs.fetch.verify import verify_whole, wrong_chunks
from axonfs.formats.manifest import DEFAULT_CHUNK_SIZE
from axonfs.store import Store, StoredObject
from axonfs.store.index import Table, Transaction
from tests.support.stores import BOOT, sample

PIECE = DEFAULT_CHUNK_SIZE
SAMPLES = [sample(size, seed=size, chunk_size=PIECE, table=False) for size in (1, 2 * PIECE + 9)]
SAMPLES.append(sample(2 * PIECE, seed=2, chunk_size=PIECE, table=False))
WHICH = st.integers(0, len(SAMPLES) - 1)
NUMBER = st.integers(0, 2)


class VerdictMachine(RuleBasedStateMachine):
    """The bytes of each local chunk are compared with those that they should be."""

    def __init__(self) -> None:
        super().__init__()
        self.smallest, hashing.SMALLEST = hashing.SMALLEST, 0
        self.directory = Path(tempfile.mkdtemp())
        self.boot = BOOT
        self.store = Store.open(self.directory, boot_id=self.boot)
        self.held: dict[int, StoredObject] = {}
        self.hashing: dict[int, Hashing] = {}
        self.open()

    def teardown(self) -> None:
        hashing.SMALLEST = self.smallest
        self.store.close()
        shutil.rmtree(self.directory)

    def open(self) -> None:
        for which, what in enumerate(SAMPLES):
            self.held[which] = self.store.object(what.entry)
            self.held[which].hold()
            self.hashing[which] = Hashing(self.held[which], None)

    @rule(which=WHICH, number=NUMBER, right=st.booleans())
    def land(self, which: int, number: int, right: bool) -> None:
        """A source's bytes, which a table of the object's own refuses where they are wrong."""
        stored, what = self.held[which], SAMPLES[which]
        chunk = number % stored.count
        piece = what.chunk(chunk) if right else memoryview(bytes(len(what.chunk(chunk))))
        table = stored.own_table()
        if table is None or table.right(chunk, piece):
            stored.land(chunk, piece, proven=table is not None)
        else:
            assert not right
            stored.land(chunk, piece)

    @rule(which=WHICH)
    def land_all(self, which: int) -> None:
        for number in range(self.held[which].count):
            self.land(which, number, right=True)

    @rule(which=WHICH, damaged=st.one_of(st.none(), NUMBER), frozen=st.booleans())
    def unpack(self, which: int, damaged: int | None, frozen: bool) -> None:
        """A pass over a package that has the object, maybe with a wrong chunk."""
        stored, what = self.held[which], SAMPLES[which]
        if stored.complete and stored.verified:
            return
        frozen = frozen and stored.verified and stored.freeze()
        filling = Filling(what.entry, stored)
        filling.begin()
        for chunk in range(stored.count):
            piece = bytes(what.chunk(chunk))
            filling.write(bytes(len(piece)) if chunk == damaged else piece)
        if damaged is None or damaged >= stored.count:
            filling.check()
            filling.settle()
            assert stored.complete
            assert stored.verified
        filling.close()
        if frozen:
            stored.thaw()

    @rule(which=WHICH, final=st.booleans())
    def verify(self, which: int, final: bool) -> None:
        stored, what = self.held[which], SAMPLES[which]
        self.check(which)
        complete, was = stored.complete, stored.verified
        wrong = any(not self.right(which, chunk) for chunk in self.local(which))
        try:
            right = verify_whole(stored, what.entry, hashing=self.hashing[which], final=final)
        except CorruptError:
            assert wrong
            assert final
            stored.quarantine(None)
            return
        assert was or not complete or right is not wrong or stored.present_bytes == 0
        if complete and not was and not wrong:
            assert stored.verified
            assert stored.own_table() == what.table

    @rule(which=WHICH)
    def follow(self, which: int) -> None:
        """Hash what is there behind what was hashed."""
        self.hashing[which]._advance(bool)

    @rule(which=WHICH)
    def check(self, which: int) -> None:
        stored, what = self.held[which], SAMPLES[which]
        for run in stored.unchecked(0, stored.count):
            wrong_chunks(stored, run, stored.own_table(), what.entry)

    @rule(which=WHICH, start=NUMBER, stop=NUMBER)
    def punch(self, which: int, start: int, stop: int) -> None:
        stored = self.held[which]
        stored.punch(min(start, stored.count), min(stop + 1, stored.count))

    @rule(which=WHICH, number=NUMBER)
    def spoil(self, which: int, number: int) -> None:
        """A chunk that is to be checked lost bytes, as a crash of the machine leaves it."""
        stored = self.held[which]
        chunk = number % stored.count
        if stored.unchecked(chunk, chunk + 1):
            os.pwrite(stored.opened(), b"\xff", chunk * PIECE)

    @rule(which=WHICH, raw=st.sampled_from([None, b"", b"torn"]))
    def lose_table(self, which: int, raw: bytes | None) -> None:
        key = bytes.fromhex(SAMPLES[which].digest)
        with self.store._index.view() as view:
            keys = [found for found, _ in view.scan(Table.TABLES, key)]

        def lose(transaction: Transaction) -> None:
            for found in keys:
                if raw is None:
                    transaction.delete(Table.TABLES, found)
                else:
                    transaction.put(Table.TABLES, found, raw)

        self.store._index.write(lose)

    @rule(which=WHICH)
    def drop(self, which: int) -> None:
        self.held[which].release()
        self.store.drop(SAMPLES[which].digest)
        self.held[which] = self.store.object(SAMPLES[which].entry)
        self.held[which].hold()
        self.hashing[which] = Hashing(self.held[which], None)
        assert not self.held[which].verified or SAMPLES[which].entry.size == 0

    @rule(boot=st.booleans(), lose_index=st.booleans())
    def reopen(self, boot: bool, lose_index: bool) -> None:
        before = {which: (one.verified, one.proven) for which, one in self.held.items()}
        for one in self.held.values():
            one.release()
        self.held.clear()
        self.store.close()
        if boot:
            self.boot = str(uuid.uuid4())
        if lose_index:
            for path in self.directory.glob("index.lmdb*"):
                path.unlink()
        self.store = Store.open(self.directory, boot_id=self.boot)
        self.open()
        for which, one in self.held.items():
            kept = (one.verified, one.proven) == before[which]
            assert kept or lose_index or boot

    def local(self, which: int) -> list[int]:
        """The chunks that are local and need no check."""
        stored = self.held[which]
        return [chunk for chunk in range(stored.count) if stored.present(chunk, chunk + 1)]

    def right(self, which: int, chunk: int) -> bool:
        expected = SAMPLES[which].chunk(chunk)
        found = os.pread(self.held[which].opened(), len(expected), chunk * PIECE)
        return found == expected

    @invariant()
    def what_was_verified_is_right(self) -> None:
        for which, stored in self.held.items():
            assert stored.verified or not stored.proven
            if stored.verified:
                assert stored.proven or stored.complete
                assert all(self.right(which, chunk) for chunk in self.local(which))


TestVerdictMachine = VerdictMachine.TestCase
TestVerdictMachine.settings = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
