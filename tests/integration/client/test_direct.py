"""A file of another process's cache: its owner may give up bytes, and fetch others, at any time."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from axonfs.client.direct import OwnersFile
from axonfs.store import Store
from tests.support.stores import held, land, sample

PIECE = 1 << 20


def test_bytes_that_the_owner_did_not_compare_are_not_read(tmp_path: Path) -> None:
    """An index of an earlier axonfs: the object was verified, and has no chunk table.

    The owner's store stands in for that of the process beside it: a process opens an index once.
    """
    what = sample(2 * PIECE + 9, chunk_size=PIECE, table=False)
    with closing(Store.open(tmp_path / "cache")) as store, held(store, what.entry) as stored:
        land(store, what)
        stored.mark_verified(stored.generation())
        file = OwnersFile(stored, partial(store.compared, stored, what.entry))
        view = memoryview(bytearray(PIECE))
        file.read_into(0, view)
        assert view == what.chunk(0)
        stored.punch(1, 2)
        stored.land(1, memoryview(bytes(PIECE)))
        with pytest.raises(OSError, match="dropped"):
            file.read_into(PIECE, view)
