"""How much one job stores at a time."""

from __future__ import annotations

import pytest

from axonfs.fetch.transfer import PIECES_BYTES, SMALLEST_PIECE, largest_piece

MIB = 1 << 20


@pytest.mark.parametrize(("running", "size"), [(1, 8), (6, 8), (7, 4), (12, 4), (13, 2), (999, 2)])
def test_the_buffers_of_all_jobs_take_little_memory(running: int, size: int) -> None:
    assert largest_piece(running) == size * MIB
    assert running * size * MIB <= PIECES_BYTES or size * MIB == SMALLEST_PIECE
