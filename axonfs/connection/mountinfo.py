"""Which AxonFS mounts this process sees, and which processes serve each.

Reads /proc and touches no mount: one whose worker is gone or stuck can hold whoever does in an
uninterruptible sleep.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FILESYSTEM = "fuse.axonfs"


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo; `connection` is the FUSE connection's number, `owner` a user id."""

    mountpoint: Path
    connection: int
    owner: int = 0


def parse_mountinfo(text: str) -> list[Mount]:
    """The AxonFS mounts in `text`, the topmost of several at one place only.

    Source: proc_pid_mountinfo(5).
    """
    found: dict[Path, Mount | None] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, (filesystem, *rest) = left.split(" "), right.split(" ")
        if len(fields) < 5:
            continue
        mountpoint = Path(_unescape(fields[4]))
        minor = int(fields[2].partition(":")[2])
        owner = re.search(r"\buser_id=(\d+)", rest[-1]) if rest else None
        mount = Mount(mountpoint, minor, int(owner[1]) if owner else 0)
        # A mount of another kind on top hides the one below it.
        found[mountpoint] = mount if filesystem == FILESYSTEM else None
    return [mount for mount in found.values() if mount is not None]


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def mounts() -> list[Mount]:
    """The AxonFS mounts that this process sees."""
    return parse_mountinfo(
        Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    )


def serving(mount: Mount) -> list[int]:
    """The processes of its owner that have its connection open: holder and worker.

    Needs no answer of them. Empty where the kernel does not say whose connection a descriptor is
    (`fuse_connection` in fdinfo). systemd may keep the descriptor too, and is not meant.
    """
    return [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if owned(int(process.name), mount) and _is_ours(process) and _has_open(process, mount)
    ]


def owned(pid: int, mount: Mount) -> bool:
    """Whether a process is of the user who mounted: what a mount says of itself may be a lie."""
    try:
        return os.stat(f"/proc/{pid}").st_uid == mount.owner
    except OSError:
        return False


def _is_ours(process: Path) -> bool:
    with suppress(OSError):
        words = (process / "cmdline").read_bytes().split(b"\0")
        return any(word.rpartition(b"/")[2] == b"axonfs" for word in words)
    return False


def _has_open(process: Path, mount: Mount) -> bool:
    wanted = f"fuse_connection:\t{mount.connection}"
    with suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                if os.readlink(descriptor) == "/dev/fuse":
                    info = (process / "fdinfo" / descriptor.name).read_text()
                    if wanted in info.splitlines():
                        return True
    return False
