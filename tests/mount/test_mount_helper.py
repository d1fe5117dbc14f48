"""docs/mounting.md: `mount.axonfs` as mount(8) runs it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fstab import HELPER, Machine, machine, missing
from tests.support.registry import RegistryServer

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.getuid() != 0, reason="mounts by mount(8)"),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
FILE = "nlp/tiny/1.0.0/vocab.txt"
AXONFS = (sys.executable, "-m", "axonfs")


@pytest.fixture
def host(place: Path, tmp_path: Path) -> Iterator[Machine]:
    with machine(tmp_path / "fstab") as found:
        yield found
        found.run(*AXONFS, "umount", "--force", place)


def options(host: Machine, place: Path) -> list[str]:
    """The source and the options in the mount table, in words."""
    return host.run("findmnt", "-no", "SOURCE,OPTIONS", place).stdout.split()


def settings(host: Machine, place: Path) -> dict[str, Any]:
    done = host.run(*AXONFS, "status", place, "--json")
    return {name: row["value"] for name, row in json.loads(done.stdout)["settings"].items()}


def test_a_line_of_fstab(
    host: Machine, place: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    """`mount MOUNTPOINT` mounts what /etc/fstab says, and `mount -a` only what is not mounted."""
    line = f"{registry.url} {place} fuse.axonfs noexec,allow_other,streams=8,_netdev,nofail 0 0\n"
    host.fstab.write_text(line)
    done = host.run("mount", place)
    assert (done.returncode, done.stderr) == (0, "")
    source, words = options(host, place)
    assert source == registry.url
    assert {"ro", "nosuid", "nodev", "noexec", "allow_other"} <= set(words.split(","))
    assert host.run("cmp", place / FILE, tmp_path / "source0/vocab.txt").returncode == 0
    assert settings(host, place)["streams"] == 8
    assert host.run("mount", "-a").returncode == 0
    again = host.run("mount", place)
    assert again.returncode == 32
    assert "already mounted" in again.stderr
    for _ in range(2):  # the processes of the last mount may still be ending
        assert host.run("umount", place).returncode == 0
        assert host.run("mount", place).returncode == 0


def test_a_remount(host: Machine, place: Path, registry: RegistryServer) -> None:
    """`mount -o remount` changes the settings that it names, and no others; it outlives a worker.
    What cannot change while mounted is refused."""
    given = f"streams=8,retries=3,noexec,cache={os.environ['AXONFS_CACHE_DIR']}"
    assert host.run("mount", "-t", "fuse.axonfs", registry.url, place, "-o", given).returncode == 0
    for text in ("bandwidth=50M", "prefetch=off,streams=9,exec"):
        done = host.run("mount", "-o", f"remount,{text}", place)
        assert (done.returncode, done.stderr) == (0, "")
    host.run(*AXONFS, "restart", place)
    now = settings(host, place)
    shown = {name: now[name] for name in ("bandwidth", "prefetch", "streams", "retries")}
    assert shown == {"bandwidth": 50 << 20, "prefetch": "off", "streams": 9, "retries": 3}
    assert now["registries"] == [registry.url]
    assert "noexec" not in options(host, place)[1]
    own = f"fsname={registry.url},config={os.environ['AXONFS_CONFIG']}"
    refused = ("uid=7", "frob", "streams=0", "fsname=other", "config=/etc/other.yaml")
    for text, code in (*((text, 1) for text in refused), ("offline", 0), (own, 0)):
        assert host.run("mount", "-o", f"remount,{text}", place).returncode == code
    assert settings(host, place)["offline"]
    assert host.run("mount", "-o", "remount", place.parent).returncode == 32


def test_it_fails_as_mount_does(host: Machine, place: Path, registry: RegistryServer) -> None:
    """Exit code 1 for wrong usage, 32 for a mount that fails; `-s` forgives unknown options, and
    `-f` does not mount. No token can be given."""

    def mount(*words: str | Path) -> tuple[int, str]:
        done = host.run("mount", "-t", "fuse.axonfs", *words)
        return done.returncode, done.stderr

    assert mount(registry.url, place, "-o", "frob")[0] == 1
    code, complaint = mount(registry.url, place, "-o", "token=SECRET")
    assert (code, "SECRET" in complaint) == (1, False)
    assert mount("ftp://host", place)[0] == 1
    place.joinpath("file").touch()
    assert mount(registry.url, place)[0] == 1
    place.joinpath("file").unlink()
    code, complaint = mount(registry.url, place, "-o", "cache=/proc/nowhere")
    assert (code, "/proc/nowhere" in complaint) == (32, True)
    code, told = mount("-f", registry.url, place, "-o", "rw")
    assert (code, options(host, place)) == (0, [])
    code, told = mount("-s", registry.url, place, "-o", "frob,comment=x")
    assert (code, told) == (0, "mount options: 'frob' is unknown, and left out\n")
    assert options(host, place)


def test_another_namespace(host: Machine, place: Path, registry: RegistryServer) -> None:
    """`-N` mounts in another mount namespace, and there alone."""
    words = [HELPER, registry.url, place, "-o", "rw", "-vN", str(host.pid)]
    subprocess.run(list(map(str, words)), check=True, timeout=60)
    assert options(host, place)
    assert not os.path.ismount(place)


def test_without_a_helper_of_its_own(place: Path, tmp_path: Path, registry: RegistryServer) -> None:
    """Where only libfuse's `mount.fuse3` is installed, that runs `axonfs`, with the same result."""
    with machine(tmp_path / "fstab", helper=False) as host:
        path = f"PATH={HELPER.parent}:{os.environ['PATH']}"
        source = f"{registry.url} file://{tmp_path}"
        words = ["mount.fuse3", source, str(place), "-t", "fuse.axonfs"]
        done = host.run("env", path, *words, "-o", "rw,user,nofail,streams=8")
        assert (done.returncode, done.stderr) == (0, "")
        assert settings(host, place)["registries"] == [registry.url, f"file://{tmp_path}"]
        assert host.run("cmp", place / FILE, tmp_path / "source0/vocab.txt").returncode == 0
        holder = int(json.loads(host.run(*AXONFS, "status", place, "--json").stdout)["pid"])
        descriptor = os.pidfd_open(holder)
        assert host.run("umount", place).returncode == 0
        assert select.select([descriptor], [], [], 20)[0]  # it ends by itself
        os.close(descriptor)
