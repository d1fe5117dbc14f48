"""Mounts of other users: what they say of themselves, and what this user can do with them.

What another user's mount says is shown and not believed; only root's names registries to ask, and
never a token. Nothing here touches a mount: `mounts.health` does, in a child.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from axonfs.client.health import Health, health
from axonfs.connection.mountinfo import Mount, mounts
from axonfs.errors import AccessDeniedError, AxonError, UsageError
from axonfs.settings.settings import convert

SHOWN = 3  # mounts that a message names at most


@dataclass(frozen=True, slots=True)
class Other:
    """A mount that another user made, and whether it answers this one."""

    mount: Mount
    health: Health

    @property
    def place(self) -> Path:
        """Where it is mounted."""
        return self.mount.mountpoint

    @property
    def title(self) -> str:
        """It in a few words."""
        return f"{owner_of(self.mount)}'s mount at {self.place}"

    @property
    def alive(self) -> bool:
        """Whether this user may read it, and it answers."""
        return self.health.state == "alive"

    @property
    def registries(self) -> tuple[str, ...]:
        """What it says that its registries are; none unless it is root's."""
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
    """The mounts of root's where this user is another; those that name registries come first."""
    found = [other for other in others() if other.mount.owner == 0]
    return sorted(found, key=lambda other: not other.registries)


def beside_root(op: str, cache: Path) -> list[str]:
    """What to tell a user without a cache in use where root has a mount: whose cache is meant."""
    found = roots()
    if not found:
        return []
    command = _COMMANDS.get(op, op.replace("_", " "))
    places = ", ".join(str(other.place) for other in found[:SHOWN])
    texts = [
        f"root's mount at {places} has a cache that only root can use (as root: axonfs {command}"
        f" …); this is about your own, {cache}"
    ]
    if found[0].registries and op in _FETCHING:
        texts.append(f"its registry can be yours too: --registry {found[0].registries[0]}")
    return texts


_FETCHING = frozenset({"pin", "pin_lock", "update", "lock"})
_COMMANDS = {"pin_check": "pin --check", "pin_lock": "pin --lock"}


def owner_of(mount: Mount) -> str:
    """The user who mounted, by name where there is one."""
    try:
        return pwd.getpwuid(mount.owner).pw_name
    except KeyError:
        return f"uid {mount.owner}"


def is_ours(mount: Mount) -> bool:
    """Whether this user may change it: root may change every mount."""
    return os.geteuid() in (0, mount.owner)


def check_ours(mount: Mount, command: str) -> None:
    """
    Raises:
        AccessDeniedError: it is another user's, with who can do what `command` does.
    """
    if is_ours(mount):
        return
    owner = owner_of(mount)
    by = "as root" if owner == "root" else f"as {owner} or root"
    raise AccessDeniedError(
        f"this is {owner}'s mount, and only {owner}{'' if owner == 'root' else ' or root'} may"
        f" {command} it",
        path=str(mount.mountpoint),
        hint=f"{by}: axonfs {command} {mount.mountpoint}",
    )


def state_of(other: Other) -> str:
    """Why another user's mount says nothing here."""
    return f"{other.title} {_STATES[other.health.state]}"


_STATES = {
    "alive": "answers",
    "dead": "is dead: its process has ended",
    "wedged": "does not answer",
    "closed": "is closed to other users: it was mounted without --allow-other",
}


def unanswered(mount: Mount, state: Health) -> AxonError:
    """The error of a mount that does not say what it is asked."""
    what = f"{owner_of(mount)}'s mount {_STATES[state.state]}"
    hint = f"axonfs umount --force {mount.mountpoint}" if is_ours(mount) else None
    if state.state == "closed":
        hint = f"ask {owner_of(mount)} to mount it with --allow-other"
    return AxonError(what, path=str(mount.mountpoint), hint=hint)
