"""`axonfs logs`: the log of a mount, in its file and over a rotation."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from axonfs.client.health import mount_at
from tests.mount.conftest import MountFactory, run_axonfs, settled
from tests.support.registry import RegistryServer

pytestmark = pytest.mark.mount


def state_of(pid: int) -> str:
    """The state of a process: S while it sleeps."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def test_the_log_of_a_mount_in_the_background(
    place: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    nothing = run_axonfs("logs", check=False)
    assert nothing.returncode == 1
    assert "there is no log" in nothing.stderr
    run_axonfs("mount", place, "--registry", registry.url)
    assert f"mounted at {place}" in run_axonfs("logs", place).stdout
    assert run_axonfs("logs", place, "-n", "0").stdout == ""
    command = [sys.executable, "-m", "axonfs", "logs", "-f", "-n", "1", str(place)]
    log = tmp_path / "cache/run/mount.log"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        first = following.stdout.readline()  # it has opened the log
        settled(lambda: state_of(following.pid) == "S")  # and has read it to its end
        os.rename(log, log.with_suffix(".log.1"))
        with log.with_suffix(".log.1").open("a") as before, log.open("a") as now:
            before.write("the last line of before\n")
            now.write("\x1b[31mthe first one\n")
        found = [following.stdout.readline() for _ in range(2)]
        following.terminate()
    assert first
    assert found[0] == "the last line of before\n"
    assert found[1].endswith("[31mthe first one\n")
    assert run_axonfs("logs", "-n", "2").stdout.startswith("the last line of before\n")
    run_axonfs("umount", place)
    assert "the first one" in run_axonfs("logs").stdout


def test_the_log_of_a_mount_in_the_foreground(
    start_mount: MountFactory, registry: RegistryServer
) -> None:
    mount = start_mount(registry.url)
    shown = run_axonfs("logs", mount.path).stdout
    assert shown.splitlines()[-1] in mount.log.read_text()


def test_the_log_of_a_unit_is_the_journals(
    place: Path, registry: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script stands in for journalctl: no systemd runs here."""
    program = tmp_path / "bin/journalctl"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "axonfs", "mount", str(place), "--foreground"]
    with ours, theirs:
        mounting = subprocess.Popen([*command, "--registry", registry.url], stderr=theirs.fileno())
        try:
            settled(lambda: mount_at(place) is not None)
            monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
            asked = run_axonfs("logs", "-f", "-n", "7", place).stdout.split()
        finally:
            mounting.terminate()
            mounting.wait()
    assert asked[-3:] == ["--lines=7", "--output=cat", "--follow"]
    unit = Path("/proc/self/cgroup").read_text().strip().rpartition("/")[2]
    known = unit.endswith((".service", ".scope"))
    assert (f"--unit={unit}" if known else f"_PID={mounting.pid}") in asked
