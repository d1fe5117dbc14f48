"""What tests of commands and of the store share."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.cli.main import main
from axonfs.settings import limits
from axonfs.store import Store
from tests.support.commands import Done, Run
from tests.support.stores import BOOT


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config file and a cache of the test's own. Automatic, so that it comes before the fixtures
    of a test file: `run` would otherwise clear the variables that those set. The cache limit of
    all tests stays."""
    for name in list(os.environ):
        if name.startswith("AXONFS_") and not name.startswith(
            ("AXONFS_TEST_", "AXONFS_CACHE_SIZE")
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AXONFS_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("AXONFS_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def whole_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches that are opened in this process without a limit leave nothing free, so that no test
    depends on how full the disk is."""
    monkeypatch.setattr(limits, "DEFAULT_FREE", 0)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """One command line in this process."""
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
