"""The mount table of this process, or of another one: /proc/<process>/mountinfo.

It touches no mount: one whose server has ended or is stuck can keep a process that touches it in an
uninterruptible sleep. Any thread; calls read small files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

FILESYSTEM = "fuse.axonfs"
_MAX_SYMLINKS = 40  # as in Linux


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of mountinfo, for any file system. `device` is the minor device number, which for a
    FUSE mount is the number of its connection. `root` is the directory of it that is mounted."""

    number: int
    parent: int
    mountpoint: Path
    device: int
    filesystem: str
    owner: int
    options: str = ""  # of the file system
    source: str = ""
    root: str = "/"


def entries(text: str) -> Iterator[Entry]:
    """The entry in each line of `text`.

    The kernel escapes blanks, tabs, newlines and backslashes. What else ends a line for Python may
    be in a path. Source: proc_pid_mountinfo(5).
    """
    for line in text.split("\n"):
        left, _, right = line.partition(" - ")
        fields, (filesystem, *rest) = left.split(" "), right.split(" ")
        if len(fields) < 5:
            continue
        owner = re.search(r"\buser_id=(\d+)", rest[-1]) if rest else None
        yield Entry(
            number=int(fields[0]),
            parent=int(fields[1]),
            mountpoint=Path(_unescape(fields[4])),
            device=int(fields[2].partition(":")[2]),
            filesystem=filesystem,
            owner=int(owner[1]) if owner else 0,
            options=_unescape(rest[-1]) if rest else "",
            source=_unescape(rest[0]) if rest else "",
            root=_unescape(fields[3]),
        )


def topmost(found: Iterator[Entry]) -> list[Entry]:
    """Those that no other one at the same place is mounted on: a path leads to these."""
    listed = list(found)
    below = {(entry.parent, entry.mountpoint) for entry in listed}
    return [entry for entry in listed if (entry.number, entry.mountpoint) not in below]


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def table(process: str | int = "self") -> str:
    """The text of a process's mount table."""
    return os.fsdecode(Path("/proc", str(process), "mountinfo").read_bytes())


def mountpoints() -> set[str]:
    """Where this process sees AxonFS: its mounts, bind mounts of it, and overlays on top of it."""
    found = list(entries(table()))
    own = {str(entry.mountpoint) for entry in found if entry.filesystem == FILESYSTEM}
    overlays = {
        str(entry.mountpoint)
        for entry in found
        if entry.filesystem == "overlay" and any(place in entry.options for place in own)
    }
    return own | overlays


def leads_into(path: str, places: Collection[str]) -> bool:
    """Whether `path`, which is absolute, is in one of these mounts, after all its symlinks.

    Touches none of them. A path with too many symlinks counts as one that is.
    """
    done, rest, followed = "/", path.split("/")[::-1], 0
    while rest:
        name = rest.pop()
        if name in ("", "."):
            continue
        done = os.path.dirname(done) if name == ".." else os.path.join(done, name)
        if done in places:
            return True
        try:
            target = os.readlink(done)
        except OSError:  # no symlink, or nothing at all
            continue
        followed += 1
        if followed > _MAX_SYMLINKS:
            return True
        done = "/" if target.startswith("/") else os.path.dirname(done)
        rest += target.split("/")[::-1]
    return False
