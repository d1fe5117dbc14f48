"""The helper that stops vLLM must leave nothing behind: an orphaned engine holds 3 GB."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from tests.vllm.serving import VllmFailedError, process_group, wait_ready

# Ignores SIGINT, has a child, and says so once it is there.
STUBBORN = "trap '' INT; sleep 100 & echo $!; wait"


def test_whole_group_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.vllm.serving.STOP_SECONDS", 0.2)
    read, write = os.pipe()
    with (
        os.fdopen(read) as told,
        os.fdopen(write, "wb") as output,
        process_group(["sh", "-c", STUBBORN], dict(os.environ), output) as process,
    ):
        child = os.pidfd_open(int(told.readline()))
    assert process.returncode is not None
    # The kernel delivers a signal when it gets to it; a pidfd is readable once its process ended.
    ended, _, _ = select.select([child], [], [], 10)
    os.close(child)
    assert ended


def test_early_end_is_told_with_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = ["sh", "-c", "echo no such model; exit 3"]
        with process_group(command, dict(os.environ), output) as process:
            process.wait()
            with pytest.raises(VllmFailedError, match=r"ended with 3:\nno such model"):
                wait_ready("http://127.0.0.1:9/health", process, log)
