"""The checks of `axonfs doctor` for this machine: the kernel, the cache, the mounts.

They change nothing, except for a temporary file in the cache directory. Those of registries and
hubs are in doctor_sources.py.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axonfs.cli.extensions import NATIVE, RECORDS, by_whom, why_not_of
from axonfs.client.health import health
from axonfs.client.other_users import Other, state_of
from axonfs.connection.libfuse import BUNDLED, check_libfuse
from axonfs.connection.mountinfo import Mount, mounts
from axonfs.connection.mounting import DEVICE, FUSE_CONFIG, user_allow_other
from axonfs.distro import install_fuse
from axonfs.errors import UnsupportedError
from axonfs.http_client import why_no_records
from axonfs.names import word
from axonfs.rundir import guard
from axonfs.settings.settings import Settings
from axonfs.units import size

OK, WARN, FAIL = "ok", "warn", "fail"
OLDEST_KERNEL = (5, 4)
PASSTHROUGH_KERNEL = (6, 9)
LITTLE_SPACE = 5 << 30


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check; `state` is ok, warn or fail, and `hint` says what to do."""

    name: str
    state: str
    text: str
    hint: str = ""


def machine_checks(settings: Settings) -> Iterator[Check]:
    """Check what mounting needs: the device, the helper program and the kernel."""
    yield fuse_device(DEVICE)
    yield libfuse()
    yield _helper()
    if settings.allow_other and os.geteuid() != 0:
        yield allow_other(FUSE_CONFIG)
    yield kernel(platform.release())
    yield extensions()
    yield passthrough(platform.release())


def fuse_device(device: Path) -> Check:
    """Check that /dev/fuse exists and that this user may open it."""
    try:
        mode = device.stat().st_mode
    except OSError:
        return Check(
            "device",
            FAIL,
            f"{device} does not exist",
            "modprobe fuse, or in a container pass it in (--device /dev/fuse --cap-add SYS_ADMIN)",
        )
    shown = f"{device} has mode {stat.S_IMODE(mode):04o}"
    if not stat.S_ISCHR(mode):
        return Check("device", FAIL, f"{device} is not a device", "remove it and modprobe fuse")
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as exc:
        return Check(
            "device",
            FAIL,
            f"{shown} and cannot be opened: {exc.strerror}",
            f"as root: chmod 0666 {device}",
        )
    return Check("device", OK, f"{shown} and opens")


def libfuse() -> Check:
    """Check that pyfuse3 and libfuse3 are there; only a mount needs them."""
    try:
        return Check("libfuse3", OK, check_libfuse())
    except UnsupportedError as exc:
        return Check("libfuse3", FAIL, f"{exc.what}; nothing can be mounted", exc.hint or "")


def _helper() -> Check:
    found = shutil.which("fusermount3")
    if found is not None:
        return Check("fusermount3", OK, found)
    state = WARN if os.geteuid() == 0 else FAIL
    return Check("fusermount3", state, "not installed; only root can mount", install_fuse())


def allow_other(config: Path) -> Check:
    """Check that users may mount with --allow-other."""
    if user_allow_other(config):
        return Check("allow_other", OK, f"{config} has user_allow_other")
    return Check(
        "allow_other",
        FAIL,
        "only root may mount for other users here",
        f"add the line user_allow_other to {config}",
    )


def kernel(release: str) -> Check:
    """Check that the kernel is recent enough."""
    if not _older(release, OLDEST_KERNEL):
        return Check("kernel", OK, release)
    oldest = ".".join(map(str, OLDEST_KERNEL))
    return Check("kernel", WARN, f"{release} is older than {oldest}", "upgrade the kernel")


def _older(release: str, version: tuple[int, int]) -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return numbers is not None and tuple(map(int, numbers.groups())) < version


_FROM_DISK = "programs read pinned versions from the disk with axonfs path"


def extensions() -> Check:
    """Check that the C extensions are built, without which reads and TLS take more processor."""
    from axonfs.fuse.openreply import UNAVAILABLE

    why_not = {NATIVE: UNAVAILABLE, RECORDS: why_no_records()}
    if not any(why_not.values()):
        return Check("extensions", OK, by_whom(why_not))
    hint = install_fuse() if BUNDLED.is_dir() else "then install axonfs again"
    return Check("extensions", WARN, by_whom(why_not), hint)


def passthrough(release: str) -> Check:
    """Check for passthrough, with which the kernel reads complete files itself, at disk speed."""
    from axonfs.fuse.openreply import UNAVAILABLE

    if UNAVAILABLE is not None:
        return Check("passthrough", WARN, f"needs the extension {NATIVE}")
    if os.geteuid() != 0:
        return Check("passthrough", OK, f"only mounts of root have it; {_FROM_DISK}")
    if _older(release, PASSTHROUGH_KERNEL):
        return Check("passthrough", WARN, f"needs Linux 6.9, this is {release}", _FROM_DISK)
    return Check("passthrough", OK, "built")


def cache_checks(settings: Settings) -> Iterator[Check]:
    """Check that the cache directory can be used, and for free space."""
    directory = settings.cache
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        guard(directory)
        with tempfile.TemporaryFile(dir=directory) as file:
            sparse = _is_sparse(file.fileno())
    except OSError as exc:
        yield Check(
            "cache",
            FAIL,
            f"{directory} cannot be written: {exc.strerror}",
            "choose another with --cache DIR or axonfs config set cache DIR",
        )
        return
    except UnsupportedError as exc:
        yield Check("cache", FAIL, f"{directory}: {exc.what}", exc.hint or "")
        return
    yield Check("cache", OK, f"{directory} can be written")
    if not sparse:
        yield Check(
            "sparse files",
            WARN,
            f"the file system of {directory} has no sparse files, so a file that"
            " is read in part takes its whole size",
            "use ext4, xfs, btrfs or tmpfs",
        )
    yield from _stacked(directory)
    yield _space(directory, settings.cache_size)


def _stacked(directory: Path) -> Iterator[Check]:
    """Check for a stacked file system, on which the kernel refuses passthrough."""
    from axonfs.store import file_system

    kind = file_system(directory)
    if kind in ("overlay", "ecryptfs") and os.geteuid() == 0:
        what = f"{directory} is on {kind}, a stacked file system, where passthrough does not work"
        hint = "put the cache on a volume or another disk with --cache"
        yield Check("passthrough", WARN, what, hint)


def _is_sparse(descriptor: int) -> bool:
    os.ftruncate(descriptor, 8 << 20)
    return os.fstat(descriptor).st_blocks * 512 < 4 << 20


def _space(directory: Path, limit: int | None) -> Check:
    disk = shutil.disk_usage(directory)
    usable = disk.used + disk.free  # `total` counts blocks that are reserved for root
    text = f"{size(disk.free)} of {size(usable)} free"
    if disk.free < min(LITTLE_SPACE, usable // 10):
        return Check("space", WARN, text, "free some space, or choose another disk with --cache")
    if limit is not None and limit > usable:
        return Check(
            "space",
            WARN,
            f"{text}, less than the cache limit of {size(limit)}",
            "set a smaller cache_size",
        )
    return Check("space", OK, text)


def mount_checks(settings: Settings) -> Iterator[Check]:
    """Check that each mount answers."""
    found = mounts()
    if not found:
        yield Check("mounts", OK, "nothing is mounted")
    for mount in found:
        yield mount_check(mount)


def mount_check(mount: Mount) -> Check:
    """Check that one mount answers, and report its own faults."""
    place, answer = mount.mountpoint, health(mount)
    name, end = f"mount {place}", f"axonfs umount --force {word(place)}"
    if mount.owner != os.geteuid() and answer.state != "alive":
        return Check(name, WARN, state_of(Other(mount, answer)))  # its owner has to fix it
    if answer.state == "dead":
        return Check(name, FAIL, "its process has ended", end)
    if answer.state == "wedged":
        hint = f"axonfs explain {word(place)} says what can be seen; {end} ends it"
        return Check(name, FAIL, "it does not answer", hint)
    if answer.state == "closed":
        return Check(name, WARN, "it is closed to this user", "mount it with --allow-other")
    failures = answer.status.get("failures") or []
    if failures:
        last = str(failures[-1].get("message", ""))
        return Check(
            name, WARN, f"{len(failures)} recent failures, the last: {last}", _see(answer.status)
        )
    if shortage := answer.status.get("cache_shortage"):
        return Check(name, WARN, f"answers, but {shortage}")
    connection = answer.status.get("connection") or {}
    if why := connection.get("why_not_own"):
        return Check(name, WARN, f"answers, but uses the connection of libfuse: {why}")
    text = f"answers (pid {answer.pid}), cache {answer.status.get('cache')}"
    if log := answer.status.get("log"):
        text += f", log {log}"
    if why := connection.get("why_no_passthrough"):
        text += f"; no passthrough: {why}"
    if found := by_whom(why_not_of(answer.status.get("extensions"))):
        text += f"; {found}"
    return Check(name, OK, text)


def _see(status: dict[str, Any]) -> str:
    """Where to read more about a mount's failures."""
    return "see axonfs status" + (f", and {status['log']}" if status.get("log") else "")
