"""What the kernel and /proc tell of a mount that does not answer. Touches no mount; blocking."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from axonfs.cli.unmounting import CONNECTIONS
from axonfs.client.health import mount_at
from axonfs.connection.mountinfo import Mount
from axonfs.daemon.holders import asleep, holder_of, silence
from axonfs.names import printable

# Where the kernel has a program asleep that waits for a FUSE file system; one that waits for a page
# may wait for another.
_ASLEEP = ("request_wait_answer", "fuse_", "folio_wait", "__fuse")
_NAMED = 10


def kernel_side(mountpoint: Path) -> dict[str, str]:
    """What can be seen from outside: names and texts."""
    mount = mount_at(mountpoint)
    if mount is None:
        return {"kernel": "nothing is mounted there now"}
    told = {"kernel": _waiting(mount)}
    holder = holder_of(mount)
    if holder is None:
        told["processes"] = "no process of this mount can be seen by this user"
    else:
        workers = ", ".join(map(str, holder.workers)) or "none"
        why, hint = silence(holder.pid)
        told["processes"] = f"holder {holder.pid}, worker {workers}; {why}; {hint}"
        told["threads"] = ", ".join(text for pid in holder.workers for text in asleep(pid))
    if programs := _sleepers():
        named = ", ".join(programs[:_NAMED])
        told["programs"] = f"asleep in a FUSE file system, or for a page of any: {named}"
    return {name: text for name, text in told.items() if text}


def _waiting(mount: Mount) -> str:
    where = CONNECTIONS / str(mount.connection)
    try:
        count = (where / "waiting").read_text().strip()
    except OSError as exc:
        return f"connection {mount.connection}; its requests are not told: {exc.strerror}"
    return f"connection {mount.connection}; {count} requests wait for an answer ({where}/waiting)"


def _sleepers() -> list[str]:
    """The programs that sleep there, as far as this user may see that."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (path / "wchan").read_text().startswith(_ASLEEP):
                name = (path / "comm").read_text(errors="replace").strip()
                found.append(f"{printable(name)} (pid {path.name})")
    return found
