"""bench/host.sh says what it needs and what is missing; the experiments have their own tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


def host(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CHECKOUT / "bench" / "host.sh", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={"HOME": "/nowhere", "PATH": os.environ["PATH"], **environment},
    )


def test_help_says_what_it_needs_and_runs_nothing() -> None:
    said = host("--help")
    assert said.returncode == 0
    assert "GiB free" in said.stdout
    assert "==>" not in said.stderr


def test_option_that_it_does_not_have() -> None:
    said = host("--fast")
    assert (said.returncode, said.stdout) == (2, "")
    assert "--pack FOLDER" in said.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="host.sh needs root")
def test_python_without_the_bench_is_refused_before_anything_runs() -> None:
    said = host(PYTHON="/bin/false")
    assert said.returncode == 1
    assert "PYTHON does not run the bench" in said.stderr
    assert "==> scale" not in said.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="host.sh needs root")
def test_disk_without_space_is_refused() -> None:
    said = host(AXONFS_BENCH_DIR="/proc")
    assert said.returncode == 1
    assert "needs 12 GiB free in /proc, which has 0" in said.stderr
