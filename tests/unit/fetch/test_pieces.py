"""How much one job stores at a time, and what that takes of the machine's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from axonfs import memory
from axonfs.fetch.transfer import SMALLEST_PIECE, largest_piece

MIB, GIB = 1 << 20, 1 << 30


@pytest.fixture
def has(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Says how much memory this machine has."""

    def say(size: int) -> None:
        memory.for_streams.cache_clear()
        monkeypatch.setattr(memory, "available", lambda: size)

    yield say
    memory.for_streams.cache_clear()


@pytest.mark.parametrize(("running", "size"), [(1, 8), (6, 8), (7, 4), (12, 4), (13, 2), (999, 2)])
def test_the_buffers_of_all_jobs_take_little_memory(
    has: Callable[[int], None], running: int, size: int
) -> None:
    has(8 * GIB)
    assert largest_piece(running) == size * MIB
    assert running * size * MIB <= memory.for_streams() or size * MIB == SMALLEST_PIECE


def test_a_host_with_much_memory_receives_large_pieces_by_many_streams(
    has: Callable[[int], None],
) -> None:
    has(2048 * GIB)
    assert memory.for_streams() == memory.STREAMS_MOST
    assert largest_piece(16) == 8 * MIB


@pytest.mark.parametrize(
    ("membership", "limit"),
    [
        ("1:cpu:/\n0::/machine/own\n", "machine/own/memory.max"),
        ("0::/machine/own\n", "machine/memory.max"),
        ("4:memory:/machine/own\n0::/\n", "memory/machine/memory.limit_in_bytes"),
        # A container with version 1: it sees its own group as the root, and not by that path.
        ("4:memory:/docker/its-id\n", "memory/memory.limit_in_bytes"),
    ],
)
def test_a_control_group_or_one_above_it_bounds_the_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, membership: str, limit: str
) -> None:
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "_MEMBERSHIP", tmp_path / "membership")
    whole = memory.available()
    assert whole > GIB
    (tmp_path / "membership").write_text(membership)
    file = tmp_path / limit
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("max\n" if file.name == "memory.max" else f"{(1 << 63) - 4096}\n")
    assert memory.available() == whole
    file.write_text(f"{100 * MIB}\n")
    assert memory.available() == 100 * MIB
