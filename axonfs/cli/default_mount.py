"""Which mount is meant where a command names none."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from axonfs.client.health import settled
from axonfs.client.other_users import SHOWN, owner_of
from axonfs.connection.mountinfo import Mount, mounts, places_of, same_namespace
from axonfs.daemon.holders import holder_of, running
from axonfs.errors import AxonError, UsageError
from axonfs.settings.settings import resolve


def meant(mountpoint: Path | None) -> Path:
    """The place that was named; else the configured one, else that of this user's only mount.

    Raises:
        AxonError: nothing of this user's is mounted there.
        UsageError: there are several mounts.
    """
    if mountpoint is not None:
        return settled(mountpoint)
    setting, provenance = resolve({})["mountpoint"]
    own, configured, chosen = _own(), settled(setting), provenance != "default"
    theirs = [mount for mount in mounts() if mount.owner != os.geteuid()]
    if chosen and configured in {mount.mountpoint for mount in theirs}:
        return configured  # whose it is, is looked at next
    if theirs and not own and not chosen:
        shown = ", ".join(f"{owner_of(mount)}'s at {mount.mountpoint}" for mount in theirs[:SHOWN])
        what = f"nothing of yours is mounted; there is {shown}, for its owner or root to change"
        raise AxonError(what, hint="see axonfs status")
    return obvious(own, configured, chosen=chosen)


def _own() -> set[Path]:
    """Where this user's mounts are; if there are none, where those were that holders still keep."""
    own = {_home(mount) for mount in mounts() if mount.owner == os.geteuid()}
    return own or {
        holder.mountpoint
        for holder in running()
        if holder.owner == os.geteuid() and same_namespace(holder.pid)
    }


def _home(mount: Mount) -> Path:
    """Where it was mounted first, if it is still there: the rest are bind mounts of it."""
    holder = holder_of(mount)
    home = holder.mountpoint if holder else mount.mountpoint
    return home if home in places_of(mount.connection) else mount.mountpoint


def obvious(own: Collection[Path], configured: Path, *, chosen: bool) -> Path:
    """The mountpoint that is meant among a user's own.

    Args:
        configured: the setting `mountpoint`, which is not just its default if it is `chosen`. Then
            no other place is ever taken for it.
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
