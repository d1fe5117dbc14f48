"""The settings that a mount keeps in a file in memory, from worker to worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.settings.applied import apply, works


@pytest.fixture
def kept() -> Iterator[int]:
    """The file in memory."""
    descriptor = os.memfd_create("settings")
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("length", [1, 40, -1])
def test_a_worker_that_was_killed_while_it_wrote(
    kept: int, length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it left in part costs the settings that were kept, and not the mount."""
    config = tmp_path / "config.yaml"
    monkeypatch.setenv("AXONFS_CONFIG", str(config))
    config.write_text("streams: 3\n")
    works(apply({}, kept, first=True), kept)
    text = os.pread(kept, 1 << 20, 0)
    os.ftruncate(kept, length % len(text))
    config.write_text("streams: [\n")
    applied = apply({}, kept, first=False)
    assert "not YAML" in str(applied.fault)
    assert applied.settings.streams == 16
