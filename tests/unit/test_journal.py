"""The journal says the same to the next worker, wherever the last one was cut off."""

from __future__ import annotations

import os
from collections.abc import Iterator

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
            st.just(0),
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
    journal.note(Kind.NODE, 5, 0, b"nlp\0tiny")
    journal.note(Kind.LOOKUP, 5, 2)
    journal.note(Kind.NODE, 6, 0, b"nlp")
    journal.note(Kind.LOOKUP, 6, 1)
    journal.note(Kind.FORGET, 6, 1)
    journal.note(Kind.OPEN, 1, 5, b"3")
    journal.note(Kind.OPEN, 2, 5, b"0")
    journal.note(Kind.RELEASE, 2)
    known = Journal(memory).known
    assert known == Known({5: KnownNode(("nlp", "tiny"), 2)}, {1: KnownHandle(5, 3)}, 2)


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
        journal.note(Kind.NODE, number, 0, f"model{number}".encode())
        journal.note(Kind.LOOKUP, number, 1)
    for number in range(20_000):
        journal.note(Kind.OPEN, number, 7, b"0")
        journal.note(Kind.RELEASE, number)
    assert os.fstat(memory).st_size > 256 << 10
    assert os.fstat(memory).st_blocks * 512 < 256 << 10
    assert Journal(memory).known == journal.known
    assert len(journal.known.nodes) == 39
