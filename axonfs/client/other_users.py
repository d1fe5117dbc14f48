"""Mounts of other users: their state, and what this user may do with them.

The status of another user's mount is shown but not trusted. Only from root's mount are the names
of registries used, and never a token. No mount is accessed here: `health` does that in a child
process.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from axonfs.client.health import Health, health
from axonfs.connection.mountinfo import Mount, mounts
from axonfs.errors import AccessDeniedError, AxonError, UsageError
from axonfs.names import word
from axonfs.settings.settings import convert

SHOWN = 3  # mounts that a message names at most


@dataclass(frozen=True, slots=True)
class Other:
    """A mount that another user made, and whether it answers this user."""

    mount: Mount
    health: Health

    @property
    def place(self) -> Path:
        """Where it is mounted."""
        return self.mount.mountpoint

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"{owner_of(self.mount)}'s mount at {self.place}"

    @property
    def alive(self) -> bool:
        """Whether it answers and this user may read it."""
        return self.health.state == "alive"

    @property
    def registries(self) -> tuple[str, ...]:
        """The registries in its status; none unless it is root's mount."""
        listed = self.health.status.get("registries")
        if self.mount.owner != 0 or not isinstance(listed, list):
            return ()
        urls = [item.get("url") for item in listed if isinstance(item, dict)]
        try:
            return tuple(convert("registries", urls, self.title))
        except UsageError:
            return ()


def others() -> list[Other]:
    """The mounts of other users, those that answer first."""
    found = [Other(mount, health(mount)) for mount in mounts() if mount.owner != os.geteuid()]
    return sorted(found, key=lambda other: not other.alive)


def roots() -> list[Other]:
    """Root's mounts, if this user is not root; those that name registries come first."""
    found = [other for other in others() if other.mount.owner == 0]
    return sorted(found, key=lambda other: not other.registries)


def beside_root(op: str, cache: Path) -> list[str]:
    """Notes for a user who has no cache yet on a machine where root has a mount."""
    found = roots()
    if not found:
        return []
    command = _COMMANDS.get(op, op.replace("_", " "))
    places = ", ".join(str(other.place) for other in found[:SHOWN])
    texts = [
        f"root's mount at {places} has a cache that only root can use (as root: axonfs {command}"
        f" …); this command uses your own cache, {cache}"
    ]
    if found[0].registries and op in _FETCHING:
        texts.append(f"to use root's registry: --registry {found[0].registries[0]}")
    return texts


_FETCHING = frozenset({"pin", "pin_lock", "update", "lock"})
_COMMANDS = {"pin_check": "pin --check", "pin_lock": "pin --lock"}


def owner_of(mount: Mount) -> str:
    """The name of the user who mounted, or the uid if it has no name."""
    try:
        return pwd.getpwuid(mount.owner).pw_name
    except KeyError:
        return f"uid {mount.owner}"


def is_ours(mount: Mount) -> bool:
    """Whether this user may change the mount; root may change every mount."""
    return os.geteuid() in (0, mount.owner)


def check_ours(mount: Mount, command: str) -> None:
    """Refuse `command` on another user's mount.

    Raises:
        AccessDeniedError: it is another user's mount; the hint says who may run `command`.
    """
    if is_ours(mount):
        return
    owner = owner_of(mount)
    by = "as root" if owner == "root" else f"as {owner} or root"
    raise AccessDeniedError(
        f"this is {owner}'s mount, and only {owner}{'' if owner == 'root' else ' or root'} may"
        f" {command} it",
        path=str(mount.mountpoint),
        hint=f"{by}: axonfs {command} {word(mount.mountpoint)}",
    )


def state_of(other: Other) -> str:
    """Whether another user's mount answers, and why not, as a sentence."""
    return f"{other.title} {_STATES[other.health.state]}"


_STATES = {
    "alive": "answers",
    "dead": "is dead: its process has ended",
    "wedged": "does not answer",
    "closed": "is closed to other users: it was mounted without --allow-other",
}


def unanswered(mount: Mount, state: Health) -> AxonError:
    """The error for a mount that does not answer this user."""
    what = f"{owner_of(mount)}'s mount {_STATES[state.state]}"
    hint = f"axonfs umount --force {word(mount.mountpoint)}" if is_ours(mount) else None
    if state.state == "closed":
        hint = f"ask {owner_of(mount)} to mount it with --allow-other"
    return AxonError(what, path=str(mount.mountpoint), hint=hint)
