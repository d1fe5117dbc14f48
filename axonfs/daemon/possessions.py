"""What outlives a worker: the descriptors that a holder keeps, and what it knows of its mount.

A holder creates them when it mounts, or inherits them from the program that it replaced (execv), or
gets them from systemd, which keeps them if a holder is killed. Blocking.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from axonfs import rundir
from axonfs.connection.handshake import READ_BYTES, parse_offer
from axonfs.connection.mountinfo import places_of
from axonfs.connection.mounting import NAME, Manner, claimed, connect, connection_of, release
from axonfs.daemon import systemd
from axonfs.daemon.holders import STATE_NAME, State
from axonfs.settings.settings import Settings, own_config

ADOPT = "AXONFS_ADOPT"


@dataclass(slots=True)
class Possessions:
    """A holder's descriptors and the state that it keeps in one of them.

    `settings` and `meters` are files in memory that the workers write (settings/applied.py,
    observe/meters.py). `device` is -1 if libfuse makes the connection. `answered` says that a
    worker has answered the kernel.
    """

    lock: int
    control: int
    journal: int
    settings: int
    meters: int
    state: int
    known: State
    device: int = -1
    answered: bool = False

    NAMES = ("lock", "control", "journal", "settings", "meters", "state", "device")

    @property
    def descriptors(self) -> dict[str, int]:
        found = {name: getattr(self, name) for name in self.NAMES}
        return {name: number for name, number in found.items() if number >= 0}

    def save(self) -> None:
        """Write `known` to the file `state`."""
        self.known.save(self.state)

    @property
    def init(self) -> bytes:
        """The kernel's INIT message."""
        return bytes.fromhex(self.known.init)

    def hand_over(self) -> None:
        """Pass everything to the program that this process is about to execute."""
        for descriptor in self.descriptors.values():
            os.set_inheritable(descriptor, True)
        os.environ[ADOPT] = json.dumps(self.descriptors)

    def take_back(self) -> None:
        """Undo `hand_over`."""
        del os.environ[ADOPT]
        for descriptor in self.descriptors.values():
            os.set_inheritable(descriptor, False)


def inherited() -> Possessions | None:
    """What an earlier holder of the mount had; None if there is no mount yet."""
    text = os.environ.pop(ADOPT, "")
    found: dict[str, int] = json.loads(text) if text else {}
    for descriptor in found.values():
        os.set_inheritable(descriptor, False)
    found = found or systemd.stored()
    if not {"lock", "control", "journal", "state", "device"} <= set(found):
        return None
    for name in ("settings", "meters"):  # which a holder of an earlier version lacks
        if name not in found:
            found[name] = _memory(name)
    known = State.load(found["state"])
    chosen = {name: found[name] for name in Possessions.NAMES}
    return Possessions(**chosen, known=known, answered=True)


def settle(possessions: Possessions) -> None:
    """Complete what an earlier holder left, which may have been another process or version."""
    known = possessions.known
    known.config = str(own_config() or "")
    if not known.cache:  # a holder of an earlier version did not store these
        lock = Path(os.readlink(f"/proc/self/fd/{possessions.lock}"))
        known.cache = str(lock.parent.parent)
    if known.connection < 0:
        known.connection = connection_of(possessions.device, Path(known.mountpoint))
    if not known.mountpoint:
        known.mountpoint = str(places_of(known.connection)[-1])
    possessions.save()
    with suppress(OSError):  # a disk that fails must not end the mount
        rundir.sign_lock(possessions.lock)


def manner_of(settings: Settings, flags: Mapping[str, object]) -> Manner:
    """How a mount with these settings and flags of the command line is mounted."""
    source = str(flags.get("fsname") or NAME)
    return Manner(settings.allow_other, source, noexec=bool(flags.get("noexec")))


def acquire(
    cache: Path, mountpoint: Path, manner: Manner, frozen: Mapping[str, str | bool]
) -> Possessions:
    """Take the cache's lock and mount.

    Raises:
        AxonError: it cannot be mounted; nothing stays mounted.
    """
    rundir.prepare(cache)
    lock = rundir.take_lock(cache)
    with suppress(FileNotFoundError):  # checked before another mount's control socket is replaced
        os.close(rundir.claim_objects(cache))
    control = rundir.listen(cache).detach()
    config = str(own_config() or "")
    known = State(str(mountpoint), str(cache), frozen=dict(frozen), config=config)
    with claimed(mountpoint):
        device = connect(mountpoint, manner)
        known.connection = connection_of(device, mountpoint)
    journal, settings, meters = map(_memory, ("journal", "settings", "meters"))
    files = (journal, settings, meters, os.memfd_create(STATE_NAME))
    possessions = Possessions(lock, control, *files, known, device)
    try:
        init = os.read(device, READ_BYTES)
        parse_offer(init)
        known.init = init.hex()
        possessions.save()
    except (OSError, ValueError) as exc:
        leave_to_libfuse(possessions, str(exc))
    return possessions


def leave_to_libfuse(possessions: Possessions, why: str) -> None:
    """Unmount our own connection, so that libfuse makes one; `why` says what was wrong."""
    os.close(possessions.device)
    known = possessions.known
    release(known.connection, lazy=True)
    possessions.device, known.init, known.connection, known.plain = -1, "", -1, why
    possessions.save()


def _memory(name: str) -> int:
    return os.memfd_create(f"axonfs-{name}")
