"""What the kernel was told outlives a worker whose journal was shortened meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.mount.conftest import FILES, MountFactory, source_bytes
from tests.mount.test_passthrough import MODEL, NAME, patched
from tests.support.registry import RegistryServer

pytestmark = [pytest.mark.mount, pytest.mark.complains]

# Has every other record shorten the journal, which in use only one record in a MiB does.
SHORTENED = """
import random
from axonfs.vfs import journal
journal.Journal._rewrite_at = property(
    lambda self: random.choice((0, 1 << 62)), lambda self, value: None
)
"""


def test_a_journal_that_any_record_shortens(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    mount = start_mount(registry.url, env=patched(tmp_path, SHORTENED))
    folder = mount.path / "nlp/tiny/1.0.0"
    inside = os.open(folder, os.O_PATH)
    with (mount.path / MODEL).open("rb") as file:
        first = file.read(10)
        mount.kill_worker()
        assert first + file.read() == source_bytes(tmp_path, 0, NAME)
        for name, size in FILES.items():  # without a lookup of what is above
            assert os.stat(name, dir_fd=inside).st_size == size
    os.close(inside)
    assert mount.status()["open"] == []
