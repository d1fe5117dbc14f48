"""`axonfs logs`: where the log of a mount is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from axonfs.cli import log_reader
from axonfs.daemon.holders import Running
from axonfs.errors import NotFoundError


def test_a_mount_that_ends_meanwhile_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen("true") as ended:
        ended.wait()
    holder = Running(ended.pid, 0, Path("/models"), Path("/cache"), 0, Path("/config"))
    monkeypatch.setattr(log_reader, "_holder", lambda mountpoint, target: holder)
    with pytest.raises(NotFoundError, match="has just ended"):
        log_reader._path(None, None, 1, follow=False)
