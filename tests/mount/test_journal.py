"""What the kernel was told outlives a worker whose journal was shortened meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from axonfs.vfs.journal import Kind
from tests.mount.conftest import (
    FILES,
    MODEL,
    NAME,
    MountFactory,
    end,
    patched,
    settled,
    source_bytes,
)
from tests.support.registry import RegistryServer

pytestmark = [pytest.mark.mount, pytest.mark.complains]

# Which records shorten the journal, which in use is one in a MiB of them.
_SHORTENED = """
import random
from axonfs.vfs import journal

def shorten(self, kind, one, two=0, text=b"", note=journal.Journal.note):
    if {condition}:
        self._rewrite_at = 0
    note(self, kind, one, two, text)

journal.Journal.note = shorten
"""
# Seldom: a snapshot mends what the one before it lost.
BY_CHANCE = _SHORTENED.format(condition="random.random() < 0.1")


@pytest.mark.parametrize("kind", [Kind.NODE, Kind.LOOKUP, Kind.OPEN, Kind.RELEASE])
def test_a_journal_that_each_record_of_a_kind_shortens(
    kind: Kind, start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    shortened = _SHORTENED.format(condition=f"kind == {kind}")
    mount = start_mount(registry.url, env=patched(tmp_path, shortened))
    worker = mount.worker()
    # The last name that is looked up and the last file that is opened are what a snapshot lost.
    with (mount.path / MODEL).open("rb") as file:
        first = file.read(10)
        end(worker)
        assert first + file.read() == source_bytes(tmp_path, 0, NAME)
    worker = mount.worker()
    inside = os.open(mount.path / "nlp/tiny/1.0.0/sub", os.O_PATH)
    end(worker)
    assert os.stat("part.bin", dir_fd=inside).st_size == FILES["sub/part.bin"]
    os.close(inside)
    settled(lambda: mount.status()["open"] == [])
