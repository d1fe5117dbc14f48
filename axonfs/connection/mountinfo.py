"""Lists the AxonFS mounts of this process's mount namespace, and of those of other processes.

Reads /proc and touches no mount: a mount whose worker has ended or is stuck can keep a process that
touches it in an uninterruptible sleep. Blocking.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from axonfs.mounttable import FILESYSTEM, Entry, entries, table, topmost


@dataclass(frozen=True, slots=True)
class Mount:
    """One AxonFS mount; `connection` is the FUSE connection's number, `owner` a user id.

    A bind mount of it is a mount of the same connection.
    """

    mountpoint: Path
    connection: int
    owner: int = 0


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A mountpoint in another mount namespace, and one process in that namespace."""

    mountpoint: Path
    pid: int
    program: str

    def __str__(self) -> str:
        return f"{self.mountpoint} in the mount namespace of process {self.pid} ({self.program})"


def parse_mountinfo(text: str) -> list[Mount]:
    """The AxonFS mounts in `text`; of several at one mountpoint only the topmost."""
    found = {entry.mountpoint: entry for entry in topmost(entries(text))}
    return [
        Mount(entry.mountpoint, entry.device, entry.owner)
        for entry in found.values()
        if entry.filesystem == FILESYSTEM
    ]


def mounts() -> list[Mount]:
    """The AxonFS mounts that this process sees."""
    return parse_mountinfo(table())


def top_at(mountpoint: Path) -> Entry | None:
    """The topmost file system at `mountpoint`; None if none is mounted there."""
    found = [entry for entry in topmost(entries(table())) if entry.mountpoint == mountpoint]
    return found[-1] if found else None


def axonfs_at(mountpoint: Path) -> Mount | None:
    """The AxonFS at `mountpoint`, even below another file system that is mounted on top of it."""
    found = [
        Mount(entry.mountpoint, entry.device, entry.owner)
        for entry in entries(table())
        if entry.mountpoint == mountpoint and entry.filesystem == FILESYSTEM
    ]
    return found[-1] if found else None


def source_at(mountpoint: Path) -> str:
    """The source that the mount table shows for what is mounted there."""
    top = top_at(mountpoint)
    return top.source if top is not None else ""


def shown(mountpoint: Path, connection: int) -> bool:
    """Whether a path to `mountpoint` leads to `connection`, or to any AxonFS if that is -1."""
    top = top_at(mountpoint)
    return top is not None and top.filesystem == FILESYSTEM and connection in (-1, top.device)


def places_of(connection: int) -> list[Path]:
    """The mountpoints of `connection` that this process sees, the latest first; bind mounts too."""
    found = [entry for entry in entries(table()) if _is_of(entry, connection)]
    return [entry.mountpoint for entry in reversed(found)]


def _is_of(entry: Entry, connection: int) -> bool:
    return entry.device == connection and entry.filesystem == FILESYSTEM


def elsewhere(connection: int) -> list[Elsewhere]:
    """The mountpoints of `connection` in the mount namespaces of other processes."""
    found, seen = [], {_namespace("self"), table()}
    for process in sorted(int(path.name) for path in Path("/proc").glob("[0-9]*")):
        with suppress(OSError):  # it has ended, or this user may not inspect it
            if (namespace := _namespace(process)) in seen:
                continue
            text = table(process)
            if text not in seen:  # a namespace that this user may not identify
                program = Path(f"/proc/{process}/comm").read_text(errors="replace").strip()
                found += [
                    Elsewhere(entry.mountpoint, process, program)
                    for entry in entries(text)
                    if _is_of(entry, connection)
                ]
            seen |= {namespace, text} - {None}
    return found


def same_namespace(process: int) -> bool:
    """Whether the process is in this one's mount namespace; false if this user may not know."""
    with suppress(OSError):
        return _namespace(process) == _namespace("self")
    return False


def _namespace(process: str | int) -> str | None:
    try:
        return os.readlink(f"/proc/{process}/ns/mnt")
    except PermissionError:
        return None
