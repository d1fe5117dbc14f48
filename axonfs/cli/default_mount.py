"""Chooses the mount for a command that names no mountpoint."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from axonfs.client.health import real_path
from axonfs.client.other_users import SHOWN, owner_of
from axonfs.connection.mountinfo import Mount, mounts, places_of, same_namespace
from axonfs.daemon.holders import holder_of, running
from axonfs.errors import AxonError, UsageError
from axonfs.settings.settings import resolve


def chosen_mountpoint(mountpoint: Path | None) -> Path:
    """The mountpoint given; else the configured one, else that of this user's only mount.

    Raises:
        AxonError: this user has no such mount.
        UsageError: this user has several mounts.
    """
    if mountpoint is not None:
        return real_path(mountpoint)
    setting, provenance = resolve({})["mountpoint"]
    own, configured, chosen = _own(), real_path(setting), provenance != "default"
    theirs = [mount for mount in mounts() if mount.owner != os.geteuid()]
    if chosen and configured in {mount.mountpoint for mount in theirs}:
        return configured  # the caller checks the owner
    if theirs and not own and not chosen:
        shown = ", ".join(f"{owner_of(mount)}'s at {mount.mountpoint}" for mount in theirs[:SHOWN])
        what = f"you have no mount; only its owner or root may change another ({shown})"
        raise AxonError(what, hint="see axonfs status")
    return default_mountpoint(own, configured, chosen=chosen)


def _own() -> set[Path]:
    """The mountpoints of this user's mounts; if none is mounted, those of running holders."""
    own = {_home(mount) for mount in mounts() if mount.owner == os.geteuid()}
    return own or {
        holder.mountpoint
        for holder in running()
        if holder.owner == os.geteuid() and same_namespace(holder.pid)
    }


def _home(mount: Mount) -> Path:
    """Where the holder mounted it, if it is still there; the other places are bind mounts."""
    holder = holder_of(mount)
    home = holder.mountpoint if holder else mount.mountpoint
    return home if home in places_of(mount.connection) else mount.mountpoint


def default_mountpoint(own: Collection[Path], configured: Path, *, chosen: bool) -> Path:
    """Choose among a user's mountpoints.

    Args:
        configured: the setting `mountpoint`.
        chosen: whether the user set it. Then no other mountpoint is used.
    """
    names = ", ".join(map(str, sorted(own)))
    if configured in own:
        return configured
    if chosen:
        hint = f"name a mountpoint: {names}" if own else "see axonfs status"
        raise AxonError("no AxonFS is mounted there", path=str(configured), hint=hint)
    if not own:
        raise AxonError("nothing is mounted", hint="see axonfs status")
    if len(own) > 1:
        raise UsageError(f"there are {len(own)} mounts: {names}", hint="name one")
    return next(iter(own))
