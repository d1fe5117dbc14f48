"""Which mount is meant where a command names none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from axonfs.cli.mounts import settled
from axonfs.config import resolve
from axonfs.connection.mountinfo import Mount, mounts
from axonfs.errors import AxonError, UsageError


def meant(mountpoint: Path | None) -> Path:
    """The place that was named; else the configured one, or that of this user's only mount.

    Raises:
        AxonError: nothing of this user's is mounted.
        UsageError: there are several mounts.
    """
    if mountpoint is not None:
        return settled(mountpoint)
    own = [mount for mount in mounts() if mount.owner == os.geteuid()]
    return obvious(own, settled(resolve({})["mountpoint"][0]))


def obvious(own: Sequence[Mount], configured: Path) -> Path:
    """The mountpoint that is meant among a user's own mounts."""
    places = sorted({mount.mountpoint for mount in own})
    if configured in places:
        return configured
    if not places:
        raise AxonError("nothing is mounted", hint="see axonfs status")
    if len(places) > 1:
        names = ", ".join(map(str, places))
        raise UsageError(f"there are {len(places)} mounts: {names}", hint="name one")
    return places[0]
