"""What tests of commands and of the store share."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.cli.main import main
from axonfs.store import Store
from tests.support.commands import Done, Run
from tests.support.stores import BOOT


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """One command line in this process, with a home and a cache of the test's own."""
    for name in list(os.environ):
        if name.startswith("AXONFS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AXONFS_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("AXONFS_CACHE_DIR", str(tmp_path / "cache"))
    logger = logging.getLogger("axonfs")
    handlers, level = logger.handlers[:], logger.level

    def command(*line: str | Path) -> Done:
        code = main([str(part) for part in line])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    yield command
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store, of a machine that was started once."""
    opened = Store.open(tmp_path / "cache", boot_id=BOOT)
    yield opened
    opened.close()
