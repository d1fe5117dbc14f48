"""`axonfs debug bundle`: what is in it, what is not, and that it comes whatever the mount does."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from axonfs.cli.unmounting import CONNECTIONS
from axonfs.daemon import stacks
from axonfs.trace.records import encoded, header
from tests.mount.conftest import Mount, MountFactory, patched, run_axonfs
from tests.support.disks import Disk
from tests.support.registry import RegistryServer

pytestmark = pytest.mark.mount
PLACES = ["FILE", "CONFIG", "ENV", "HUB", "PROXY", "DOCKER", "AWS", "LOG", "SIGNED", "HEADER"]
PLACES += ["CACHE", "OTHER"]


def contents(path: Path) -> dict[str, str]:
    """The files of a bundle."""
    with tarfile.open(path) as archive:
        found = {}
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            found[member.name.removeprefix("axonfs-bundle/")] = file.read().decode()
    return found


def bundle(output: Path, environment: dict[str, str], mount: Mount) -> str:
    """All that a bundle has and its command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "axonfs", "debug", "bundle", mount.path, "-o", output],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return "\n".join(contents(output).values()) + done.stdout + done.stderr


def test_a_bundle_has_no_secret_of_any_place(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    """Tokens and passwords in files, variables, URLs and the log are not in a bundle."""
    planted = {
        name: f"PLANTED{name}0123456789"
        for name in [
            "FILE",
            "CONFIG",
            "ENV",
            "HUB",
            "PROXY",
            "DOCKER",
            "AWS",
            "LOG",
            "SIGNED",
            "HEADER",
            "CACHE",
            "OTHER",
        ]
    }
    home, config = tmp_path / "home", tmp_path / "home/config.yaml"
    (home / ".docker").mkdir(parents=True)
    (home / ".aws").mkdir()
    config.write_text(
        f"registries: ['{registry.url}']\ntokens: {{'https://b': '{planted['CONFIG']}'}}\n"
    )
    (home / "tokens.yaml").write_text(f"'https://a': {planted['FILE']}\n")
    for path in (config, home / "tokens.yaml"):
        path.chmod(0o600)
    (home / ".docker/config.json").write_text(
        json.dumps({"auths": {"x": {"auth": planted["DOCKER"]}}})
    )
    (home / ".aws/credentials").write_text(f"[a]\naws_secret_access_key = {planted['AWS']}\n")
    secret = {
        "HOME": str(home),
        "AXONFS_CONFIG": str(config),
        "HF_TOKEN": planted["HUB"],
        "HTTPS_PROXY": f"http://u:{planted['PROXY']}@proxy:3128",
    }
    mount = start_mount(
        registry.url, env={**secret, "AXONFS_CONFIG": "", "AXONFS_TOKEN": planted["ENV"]}
    )
    mount.log.write_text(
        f"a log of https://u:{planted['LOG']}@host/x and https://cdn/x?sig={planted['SIGNED']}\n"
        f"Authorization: Bearer {planted['HEADER']}\n"
        f"known secrets: {planted['FILE']} {planted['DOCKER']} {planted['AWS']} {planted['ENV']}\n"
        f"OTHER_SECRET={planted['OTHER']}\n"
    )
    everything = bundle(tmp_path / "valid.tar.gz", secret, mount)
    assert "a log of https://REMOVED@host/x and https://cdn/x?sig=REMOVED" in everything
    with config.open("a") as file:
        file.write(f"via: {{'{registry.url}': 'http://user:{planted['CACHE']}@cache'}}\n")
    invalid = bundle(tmp_path / "invalid.tar.gz", secret, mount)
    assert "via: 'http://REMOVED@cache' has credentials in it" in invalid
    everything += invalid
    assert {name for name, value in planted.items() if value[7:] in everything} == set()
    assert "HF_TOKEN=(set)" in everything


def test_what_a_bundle_has(mount: Mount, tmp_path: Path) -> None:
    """State, settings, versions, kernel, processes and stacks of the mount, for its user only."""
    output, trace = tmp_path / "bundle.tar.gz", tmp_path / "load.trace"
    run_axonfs("trace", "start", mount.path, "-o", trace)
    done = run_axonfs("debug", "bundle", mount.path, "-o", output)
    assert done.stdout.startswith(f"{output}: ")
    assert "look at it before you attach it" in done.stderr
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    found = contents(output)
    assert json.loads(found["status.json"])["mountpoint"] == str(mount.path)
    assert "WAITING: no reader waits" in found["top.txt"]
    assert f"mount {mount.path}: answers" in found["doctor.txt"]
    assert json.loads(found["settings.json"])["settings"]["streams"] == {
        "value": 16,
        "from": "default",
    }
    assert re.search(r"^pyfuse3 \d", found["versions.txt"], re.M)
    waiting = re.search(
        r"^== /sys/fs/fuse/connections/\d+/waiting\n\d+$", found["kernel.txt"], re.M
    )
    assert waiting or not any(CONNECTIONS.iterdir())  # the kernel's file system may not be mounted
    assert f" {mount.path} " in found["mountinfo.txt"]
    assert f"holder {mount.process.pid} of {mount.path}" in found["processes.txt"]
    assert "in run" in found["stacks.txt"]
    assert "df -PTh" in found["disk.txt"]
    assert f"==== {trace}\nload.trace\n" in found["traces.txt"]
    assert set(found) - {"README.txt"} <= set(re.findall(r"^(\S+)", found["README.txt"], re.M))

    before = output.read_bytes()
    again = run_axonfs("debug", "bundle", mount.path, "-o", output, check=False)
    assert again.returncode == 1
    assert "it exists, and is not written over" in again.stderr
    assert output.read_bytes() == before


def test_a_bundle_of_a_mount_that_hangs_and_of_none(mount: Mount, tmp_path: Path) -> None:
    """It comes within its time, and says what it could not get."""
    worker = mount.worker()
    for _ in range(2):
        assert "worker.py" in stacks.ask(worker)
    assert mount.worker() == worker
    os.kill(worker, signal.SIGSTOP)
    began = time.monotonic()
    impatient = patched(tmp_path, "from axonfs import call; call.ALIVE = 1.0")
    everything = bundle(tmp_path / "hangs.tar.gz", impatient, mount)
    os.kill(worker, signal.SIGCONT)
    assert time.monotonic() - began < 60
    found = contents(tmp_path / "hangs.tar.gz")
    assert "stacks.txt: it wrote no stacks within 3 s: it may be stopped" in everything
    assert re.search(
        rf"status.json +.*\n +incomplete: .*worker \(pid {worker}\) is stopped.*kill -CONT",
        found["README.txt"],
    )
    assert f"mount {mount.path}: it does not answer" in found["doctor.txt"]
    assert f"worker {worker} of {mount.path}" in found["processes.txt"]

    mount.stop()
    run_axonfs("debug", "bundle", "-o", tmp_path / "none.tar.gz", "--cache", tmp_path / "cache")
    found = contents(tmp_path / "none.tar.gz")
    assert json.loads(found["status.json"])["mountpoint"] is None
    assert "processes.txt" not in found
    assert "kernel.txt" in found


def test_a_bundle_is_of_the_mount_with_the_configured_cache_or_of_all(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    """Each of several mounts has files of its own in it."""
    one, two = (start_mount(registry.url, cache=tmp_path / name) for name in "ab")
    outputs = [tmp_path / f"{name}.tar.gz" for name in "ab"]
    run_axonfs("debug", "bundle", "-o", outputs[0], "--cache", two.cache)
    found = contents(outputs[0])
    assert json.loads(found["status.json"])["mountpoint"] == str(two.path)
    assert str(one.path) not in found["processes.txt"]
    run_axonfs("debug", "bundle", "-o", outputs[1], "--cache", tmp_path / "none")
    found = contents(outputs[1])
    tops = sorted(found[name].split()[2] for name in ("top-1.txt", "top-2.txt"))
    assert tops == [str(one.path), str(two.path)]


def test_a_full_disk_gets_no_part_of_a_file(tmp_path: Path) -> None:
    """Neither a bundle nor the picture of a trace is there in part; the error names the file."""
    path, trace = tmp_path / "full", tmp_path / "load.trace"
    trace.write_bytes(encoded([header(5.0)]))
    disk = Disk.tmpfs(path, 4096)
    try:
        for command in (
            ("debug", "bundle", "-o", path / "b.tar.gz", "--cache", tmp_path / "cache"),
            ("trace", "show", trace, "-o", path / "load.html"),
        ):
            done = run_axonfs(*command, check=False)
            assert (done.returncode, list(path.iterdir())) == (1, [])
            assert f"{path}/" in done.stderr
            assert "cannot be written: No space left on device" in done.stderr
    finally:
        disk.close()
