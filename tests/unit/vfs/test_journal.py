"""The journal says the same to the next worker, wherever the last one was cut off."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.vfs import journal as module
from axonfs.vfs.journal import Journal, Kind, Known, KnownHandle, KnownNode

FACTS = st.lists(
    st.one_of(
        st.tuples(
            st.just(Kind.NODE),
            st.integers(1, 9),
            st.integers(0, 2),
            st.sampled_from([b"", b"nlp", "nlp\0ö".encode()]),
        ),
        st.tuples(
            st.sampled_from([Kind.LOOKUP, Kind.FORGET]),
            st.integers(1, 9),
            st.integers(1, 3),
            st.just(b""),
        ),
        st.tuples(
            st.just(Kind.OPEN), st.integers(1, 9), st.integers(1, 9), st.sampled_from([b"0", b"7"])
        ),
        st.tuples(st.just(Kind.RELEASE), st.integers(1, 9), st.just(0), st.just(b"")),
    ),
    max_size=60,
)


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = os.memfd_create("test")
    yield descriptor
    os.close(descriptor)


def test_what_is_said(memory: int) -> None:
    journal = Journal(memory)
    journal.note(Kind.NODE, 5, 1, b"nlp\0tiny")
    journal.note(Kind.LOOKUP, 5, 2)
    journal.note(Kind.NODE, 6, 1, b"nlp")
    journal.note(Kind.FORGET, 6, 1)
    journal.note(Kind.OPEN, 1, 5, b"3")
    journal.note(Kind.OPEN, 2, 5, b"0")
    journal.note(Kind.RELEASE, 2)
    known = Journal(memory).known
    assert known == Known({5: KnownNode(("nlp", "tiny"), 3)}, {1: KnownHandle(5, 3)}, 2)


@given(FACTS, st.data())
def test_a_cut_leaves_a_prefix(
    facts: list[tuple[Kind, int, int, bytes]], data: st.DataObject
) -> None:
    descriptor = os.memfd_create("test")
    try:
        journal, states, ends = Journal(descriptor), [Known()], [0]
        for fact in facts:
            journal.note(*fact)
            states.append(Journal(descriptor).known)
            ends.append(os.fstat(descriptor).st_size)
        cut = data.draw(st.integers(0, ends[-1]))
        os.ftruncate(descriptor, cut)
        whole = max(number for number, end in enumerate(ends) if end <= cut)
        again = Journal(descriptor)
        assert again.known == states[whole]
        again.note(Kind.OPEN, 99, 1, b"0")
        assert Journal(descriptor).known.handles[99] == KnownHandle(1)
    finally:
        os.close(descriptor)


def test_it_does_not_grow_without_end(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROWTH", 64 << 10)
    journal = Journal(memory)
    for number in range(1, 40):
        journal.note(Kind.NODE, number, 1, f"model{number}".encode())
    for number in range(20_000):
        journal.note(Kind.OPEN, number, 7, b"0")
        journal.note(Kind.RELEASE, number)
    assert os.fstat(memory).st_size > 256 << 10
    assert os.fstat(memory).st_blocks * 512 < 256 << 10
    assert Journal(memory).known == journal.known
    assert len(journal.known.nodes) == 39


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Files of this process grow no further: a write that reaches beyond is cut off."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_record_that_is_cut_off_leaves_nothing(memory: int) -> None:
    journal = Journal(memory)
    journal.note(Kind.NODE, 5, 1, b"nlp")
    with at_most(os.fstat(memory).st_size + 10), pytest.raises(OSError, match="cut off"):
        journal.note(Kind.NODE, 6, 1, b"x" * 300)
    journal.note(Kind.LOOKUP, 5, 1)  # shorter than what was cut off
    assert journal.known == Journal(memory).known == Known({5: KnownNode(("nlp",), 2)})


def test_a_snapshot_that_is_cut_off_leaves_the_records(
    memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(memory)
    for number in range(1, 40):
        journal.note(Kind.NODE, number, 1, f"model{number}".encode())
    monkeypatch.setattr(journal, "_rewrite_at", 0)
    with at_most(os.fstat(memory).st_size + 200):
        journal.note(Kind.LOOKUP, 5, 1)
    journal.note(Kind.FORGET, 6, 1)
    assert Journal(memory).known == journal.known
    assert len(journal.known.nodes) == 38
