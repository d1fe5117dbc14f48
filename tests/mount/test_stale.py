"""No mount stays behind: signals, stopped processes, two at once; and no process either."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.connection.mountinfo import mounts
from axonfs.connection.mounting import Manner, connect
from tests.mount.conftest import FILES, MODEL, Mount, MountFactory, patched, run_axonfs
from tests.support.registry import RegistryServer

pytestmark = [pytest.mark.mount, pytest.mark.complains]


@contextlib.contextmanager
def watched(pids: list[int]) -> Iterator[list[int]]:
    descriptors = [os.pidfd_open(pid) for pid in pids]
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


def ended(descriptors: list[int], seconds: float = 20) -> bool:
    return all(select.select([descriptor], [], [], seconds)[0] for descriptor in descriptors)


def stop(pid: int) -> None:
    """SIGSTOP; returns when it is stopped."""
    os.kill(pid, signal.SIGSTOP)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.005)  # the kernel sets no event of ours


def test_the_kernel_names_holder_and_worker(mount: Mount) -> None:
    """Whose connection a descriptor is, the kernel says; the processes need not answer."""
    assert sorted(mount.processes()) == sorted([mount.process.pid, mount.worker()])


@pytest.mark.parametrize("which", ["holder", "worker", "both"])
def test_a_wedged_mount_is_freed_by_force(mount: Mount, which: str) -> None:
    """`axonfs umount --force` unmounts a mount whose processes are stopped, and ends them."""
    holder, worker = mount.process.pid, mount.worker()
    # Not by `cwd`: Popen waits with the interpreter's lock held, and the registry needs it.
    command = ["sh", "-c", 'cd "$0" && echo && exec sleep 60', str(mount.path / "nlp")]
    reader = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert reader.stdout
    reader.stdout.readline()
    try:
        with watched([holder, worker]) as descriptors:
            for pid in {"holder": [holder], "worker": [worker], "both": [holder, worker]}[which]:
                stop(pid)
            done = run_axonfs("umount", "--force", mount.path)
            assert done.returncode == 0
            assert ended(descriptors, 0)
        assert not os.path.ismount(mount.path)
    finally:
        reader.kill()
        reader.communicate()


def test_sigterm_while_the_worker_is_stopped(mount: Mount) -> None:
    """SIGTERM takes a mount away whose worker is stopped, and the worker with it."""
    with watched([mount.worker()]) as descriptors:
        stop(mount.worker())
        mount.process.send_signal(signal.SIGTERM)
        assert mount.process.wait(40) == 0
        assert ended(descriptors, 0)
    assert not os.path.ismount(mount.path)


def test_interrupted_from_the_terminal(tmp_path: Path, registry: RegistryServer) -> None:
    """Ctrl-C, which a terminal sends to both holder and worker, unmounts and exits with 0."""
    place, log = tmp_path / "terminal", tmp_path / "terminal.log"
    place.mkdir()
    command = [sys.executable, "-m", "axonfs", "mount", str(place), "--foreground"]
    command += ["--registry", registry.url, "--cache", str(tmp_path / "cache")]
    environment = {**os.environ, "AXONFS_CONFIG": "/nonexistent"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, process_group=0
        )
    mount = Mount(place, tmp_path / "cache", log, process)
    mount.wait_ready()
    with watched([mount.worker()]) as descriptors:
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 0, log.read_text()
        assert ended(descriptors, 0)
    assert not os.path.ismount(place)
    assert mount.complaints() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_before_it_answers(
    tmp_path: Path, registry: RegistryServer, number: signal.Signals
) -> None:
    """A mount that is stopped while it comes up leaves nothing behind."""
    for attempt in range(3):
        place = tmp_path / f"early{attempt}"
        place.mkdir()
        command = [sys.executable, "-m", "axonfs", "mount", str(place), "--foreground"]
        command += ["--registry", registry.url, "--cache", str(tmp_path / "cache")]
        environment = {**os.environ, "AXONFS_CONFIG": "/nonexistent"}
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, env=environment, process_group=0
        )
        while not any(mount.mountpoint == place for mount in mounts()):
            assert process.poll() is None
        os.killpg(process.pid, number)
        process.communicate(timeout=40)
        assert not any(mount.mountpoint == place for mount in mounts())


def test_a_second_mount_while_the_worker_is_replaced(
    mount: Mount, registry: RegistryServer, tmp_path: Path
) -> None:
    """A second mount on the cache is refused with the owner's pid even while the worker is being
    replaced."""
    other = tmp_path / "other"
    other.mkdir()
    with (mount.path / MODEL).open("rb") as file:
        first = file.read(10)
        for _ in range(3):  # the third is replaced after a pause
            mount.kill_worker()
        done = run_axonfs(
            "mount", other, "--registry", registry.url, "--cache", mount.cache, check=False
        )
        assert done.returncode == 1
        assert f"in use by process {mount.process.pid}" in done.stderr
        assert len(first + file.read()) == FILES["model.safetensors"]
    assert not os.path.ismount(other)


# Each mount says that it has found the place free, and goes on when all of them have.
TOGETHER = """
import os, time
from pathlib import Path
from axonfs.daemon import possessions
claimed = possessions.claimed
def late(mountpoint):
    scratch = Path(os.environ["SCRATCH"])
    (scratch / f"arrived-{os.getpid()}").touch()
    while not (scratch / "gate").exists():
        time.sleep(0.001)
    return claimed(mountpoint)
possessions.claimed = late
"""


def test_two_mounts_of_one_place_at_once(tmp_path: Path, registry: RegistryServer) -> None:
    """If several processes mount on one directory at the same time one succeeds, and the others say
    so."""
    place = tmp_path / "place"
    place.mkdir()
    environment = {**os.environ, "AXONFS_CONFIG": "/nonexistent", "SCRATCH": str(tmp_path)}
    environment |= patched(tmp_path, TOGETHER)
    command = [sys.executable, "-m", "axonfs", "mount", str(place), "--registry", registry.url]
    processes = [
        subprocess.Popen(
            [*command, "--cache", str(tmp_path / f"cache{number}")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in range(3)
    ]
    while len(list(tmp_path.glob("arrived-*"))) < len(processes):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)  # other programs set no event of ours
    (tmp_path / "gate").touch()
    said = [process.communicate(timeout=60)[1] for process in processes]
    try:
        assert sorted(process.returncode for process in processes) == [0, 1, 1], said
        assert sum("another process has just mounted it" in text for text in said) == 2
        assert Path("/proc/self/mountinfo").read_text().count(f" {place} ") == 1
        assert (place / "nlp/tiny/1.0.0/vocab.txt").stat().st_size == FILES["vocab.txt"]
    finally:
        run_axonfs("umount", place)


def test_several_dead_mounts_on_one_another(
    registry: RegistryServer, start_mount: MountFactory
) -> None:
    """A mount clears every dead mount away that lies on its place."""
    mount = start_mount(registry.url)
    below = connect(mount.path, Manner(allow_other=False))  # on top of the living one
    mount.kill()
    os.close(below)
    assert Path("/proc/self/mountinfo").read_text().count(f" {mount.path} ") == 2
    environment = {**os.environ, "AXONFS_CONFIG": "/nonexistent"}
    command = [sys.executable, "-m", "axonfs", "mount", str(mount.path), "--registry", registry.url]
    subprocess.run([*command, "--cache", str(mount.cache)], env=environment, check=True, timeout=60)
    run_axonfs("umount", mount.path)
    assert not os.path.ismount(mount.path)


MOUNT_AS_ANOTHER = """
import os, sys
from pathlib import Path
from axonfs.connection.mounting import claimed
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with claimed(Path(sys.argv[1])):
    pass
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's id")
def test_a_dead_mount_of_another_user() -> None:
    """A mount on what another user's mount left says who can unmount that: it is no mount that has
    just come."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        os.close(connect(place, Manner(allow_other=True)))
        try:
            command = [sys.executable, "-c", MOUNT_AS_ANOTHER, str(place)]
            said = subprocess.run(command, capture_output=True, text=True, timeout=60).stderr
            assert "a mount whose process has ended is left there" in said
            assert "has just mounted" not in said
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True)
