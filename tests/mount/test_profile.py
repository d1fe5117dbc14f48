"""`axonfs profile`: what programs do with a mount, summed up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.mount.conftest import (
    FILES,
    MODEL,
    NAME,
    Mount,
    read_and_closed,
    run_axonfs,
    settled,
)
from tests.mount.test_access_log import read_as

pytestmark = pytest.mark.mount


@contextmanager
def profiling(mount: Mount, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A profile that has begun; killed when the block is left."""
    command = [sys.executable, "-m", "axonfs", "profile", str(mount.path), *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            settled(lambda: mount.status()["listeners"] == 1)
            yield process
        finally:
            process.kill()


def result(process: subprocess.Popen[str]) -> tuple[str, str]:
    said, notes = process.communicate(timeout=60)
    assert process.returncode == 0, notes
    return said, notes


def row(found: dict[str, Any], view: str, name: str) -> dict[str, Any]:
    (one,) = (each for each in found[f"by_{view}"] if each[view] == name)
    assert isinstance(one, dict)
    return one


def test_sums_by_file_program_and_operation(mount: Mount) -> None:
    with profiling(mount, "--seconds", "2", "--json") as process:
        read_as(b"lo\x1bader", mount.path / MODEL)
        assert not (mount.path / "nlp/tiny/1.0.0/missing").exists()
        found = json.loads(result(process)[0])
    assert 2 <= found["seconds"] < 9
    assert (found["left_out"], found["opens_passed_through"]) == (0, 0)
    of_file = row(found, "file", MODEL)
    assert of_file["bytes"] == FILES[NAME]
    of_program = row(found, "program", "lo\x1bader")
    assert (of_program["bytes"], of_program["processes"]) == (FILES[NAME], 1)
    cold = row(found, "operation", "read (cold)")
    assert 0 < cold["slowest"] <= cold["seconds"] <= of_file["seconds"]
    assert row(found, "file", "nlp/tiny/1.0.0/missing")["count"] == 1


@pytest.mark.complains
def test_a_file_that_the_kernel_reads_and_a_worker_that_dies(mount: Mount) -> None:
    read_and_closed(mount)
    with profiling(mount, "--seconds", "4") as process:
        before = mount.kill_worker()
        settled(lambda: mount.worker() != before and mount.status()["listeners"] == 1)
        (mount.path / MODEL).read_bytes()
        said, notes = result(process)
    assert "open (passed through)  1 " in said
    assert "1 open of files that the kernel reads itself: their reads are not counted" in notes
    assert "the worker was replaced" in notes


def test_a_reload_does_not_wait_for_it(mount: Mount) -> None:
    with profiling(mount):
        assert json.loads(ask(mount))["waits_for"] == []


def ask(mount: Mount) -> str:
    source = "import json, sys; from pathlib import Path; from axonfs.call import call"
    source += "; print(json.dumps(list(call(Path(sys.argv[1]), {'op': 'reload'}))[-1]))"
    done = subprocess.run(
        [sys.executable, "-c", source, mount.cache], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_without_a_mount() -> None:
    done = run_axonfs("profile", "/", check=False)
    assert (done.returncode, "no AxonFS is mounted there" in done.stderr) == (1, True)
