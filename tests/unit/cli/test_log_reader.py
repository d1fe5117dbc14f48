"""`axonfs logs`: where the log of a mount is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from axonfs.cli import log_reader
from axonfs.cli.main import main
from axonfs.daemon.holders import Running
from axonfs.errors import NotFoundError


def test_a_mount_that_ends_meanwhile_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen("true") as ended:
        ended.wait()
    holder = Running(ended.pid, 0, Path("/models"), Path("/cache"), 0, Path("/config"))
    monkeypatch.setattr(log_reader, "_holder", lambda mountpoint, target: holder)
    with pytest.raises(NotFoundError, match="has just ended"):
        log_reader._path(None, None, 1, follow=False)


def test_a_long_line_of_json_stays_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = json.dumps({"message": "a bug", "traceback": "frame \n" * 2000})
    (tmp_path / "run").mkdir()
    (tmp_path / "run/mount.log").write_text(f"{line}\n\x1b[31mred\n")
    assert main(["logs", "--cache", str(tmp_path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert (shown[0], shown[1]) == (line, "?[31mred")
