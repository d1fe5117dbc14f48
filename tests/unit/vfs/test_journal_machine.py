"""The journal after each record, shortened by any of them, against a model of what it says."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from axonfs.vfs import journal as module
from axonfs.vfs.inodes import Inodes
from axonfs.vfs.journal import Journal, Kind, Known, KnownHandle, KnownNode
from axonfs.vfs.places import Directory

NAMES = [("nlp",), ("nlp", "tiny"), ("nlp", "tiny", "1.0.0"), ("nlp", "ö" * 80)]
NAME = st.sampled_from(NAMES)
SHORTENS = st.booleans()


class JournalMachine(RuleBasedStateMachine):
    """`model` is what the kernel was told; each rule notes one record through the real parts.

    Args of the rules:
        shortens: whether that record is the one that has the journal written anew.
    """

    @initialize()
    def start(self) -> None:
        self.descriptor = os.memfd_create("test")
        self.model = Known()
        self.before, self.end = Known(), 0
        self.adopt()

    def adopt(self) -> None:
        """What a worker does that takes over."""
        self.journal = Journal(self.descriptor)
        self.nodes = Inodes(self.journal)

    def teardown(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def begin(self, shortens: bool) -> None:
        self.before = replayed(self.descriptor)
        self.end = os.fstat(self.descriptor).st_size
        if shortens:
            self.journal._rewrite_at = 0

    @rule(path=NAME, shortens=SHORTENS)
    def lookup(self, path: tuple[str, ...], shortens: bool) -> None:
        self.begin(shortens)
        place = Directory(path)
        self.nodes.remember(place)
        node = self.model.nodes.setdefault(self.nodes.number(place), KnownNode(path))
        node.lookups += 1

    @precondition(lambda self: self.model.nodes)
    @rule(data=st.data(), shortens=SHORTENS)
    def forget(self, data: st.DataObject, shortens: bool) -> None:
        self.begin(shortens)
        inode = data.draw(st.sampled_from(sorted(self.model.nodes)))
        count = data.draw(st.integers(1, self.model.nodes[inode].lookups))
        self.nodes.forget(inode, count)
        self.model.nodes[inode].lookups -= count
        if not self.model.nodes[inode].lookups:
            del self.model.nodes[inode]

    @precondition(lambda self: self.model.nodes)
    @rule(data=st.data(), backing_id=st.sampled_from([0, 7]), shortens=SHORTENS)
    def open(self, data: st.DataObject, backing_id: int, shortens: bool) -> None:
        self.begin(shortens)
        inode, number = data.draw(st.sampled_from(sorted(self.model.nodes))), self.model.last + 2
        self.journal.note(Kind.OPEN, number, inode, str(backing_id).encode())
        self.model.handles[number] = KnownHandle(inode, backing_id)
        self.model.last = number

    @precondition(lambda self: self.model.handles)
    @rule(data=st.data(), shortens=SHORTENS)
    def release(self, data: st.DataObject, shortens: bool) -> None:
        self.begin(shortens)
        number = data.draw(st.sampled_from(sorted(self.model.handles)))
        self.journal.note(Kind.RELEASE, number)
        del self.model.handles[number]

    @rule()
    def die(self) -> None:
        """Between two records."""
        self.adopt()

    @rule(data=st.data())
    def die_within(self, data: st.DataObject) -> None:
        """In the middle of the last record, or of the snapshot behind it: all of it is there, or
        nothing. Before a snapshot is whole nothing is let go, so a hole rules the cut out."""
        size = os.fstat(self.descriptor).st_size
        if self.end >= size or hole_of(self.descriptor) > 0:
            return
        cut = data.draw(st.integers(self.end, size))
        copy = copied(self.descriptor, cut)
        try:
            assert Journal(copy).known in (self.before, self.model)
        finally:
            os.close(copy)

    @invariant()
    def says_what_the_kernel_was_told(self) -> None:
        if hasattr(self, "descriptor"):
            assert self.journal.known == self.model
            assert replayed(self.descriptor) == self.model
            for inode, node in self.model.nodes.items():
                assert self.nodes.path(inode) == node.path


def replayed(descriptor: int) -> Known:
    """What the next worker would know."""
    copy = copied(descriptor, os.fstat(descriptor).st_size)
    try:
        return Journal(copy).known
    finally:
        os.close(copy)


def copied(descriptor: int, size: int) -> int:
    copy = os.memfd_create("copy")
    os.pwrite(copy, os.pread(descriptor, size, 0), 0)
    return copy


def hole_of(descriptor: int) -> int:
    data = os.pread(descriptor, 4096, 0)
    return len(data) - len(data.lstrip(b"\0"))


class Unpunched(JournalMachine):
    """Every kill comes after a snapshot and before what it replaces is let go."""

    @initialize()
    def start(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(module, "cut", lambda descriptor, bounds, size: None)
        super().start()

    def teardown(self) -> None:
        self.patch.undo()
        super().teardown()


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
TestUnpunched = Unpunched.TestCase
TestUnpunched.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
