"""Which mount a command is about that names no mountpoint.

What looks at a mount takes the one with the configured cache; if nothing names a cache, else this
user's only one, or the only one of all users. What changes a mount takes the configured mountpoint,
and no other; if nothing names one, a mount of this user: the one with the configured cache, the one
at the default mountpoint, or the only one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from axonfs.client.health import real_path
from axonfs.client.other_users import SHOWN, is_ours, owner_of
from axonfs.client.target import Target
from axonfs.client.transport import cache_of
from axonfs.connection.mountinfo import Mount, mounts, places_of, same_namespace
from axonfs.daemon.holders import holder_of, running
from axonfs.errors import AxonError, NotFoundError, UsageError
from axonfs.names import word
from axonfs.settings.settings import resolve

HOW_TO_MOUNT = "to mount: axonfs mount"


def mount_to_look_at(target: Target) -> Mount:
    """The mount for a command that looks at one.

    Raises:
        NotFoundError: nothing is mounted, or not with the cache that is named.
        UsageError: there are several.
    """
    own = own_mounts()
    with_cache = having_cache(own, target.settings.cache)
    if target.explicit_cache and not with_cache:
        what = f"nothing is mounted with the cache {target.settings.cache}"
        raise NotFoundError(what, hint=where_mounted())
    candidates = with_cache[:1] or own or mounts()
    if not candidates:
        raise NotFoundError("nothing is mounted", hint=HOW_TO_MOUNT)
    if len(candidates) > 1:
        raise _several(mount.mountpoint for mount in candidates)
    return candidates[0]


def place_to_change(mountpoint: Path | None) -> Path:
    """The mountpoint for a command that changes a mount: the one given, or that of this user.

    Raises:
        AxonError: this user has no such mount.
        UsageError: this user has several mounts.
    """
    if mountpoint is not None:
        return real_path(mountpoint)
    settings = resolve({})
    (setting, provenance), (cache, named_by) = settings["mountpoint"], settings["cache"]
    mine = own_mounts()
    theirs = [mount for mount in mounts() if mount.owner != os.geteuid()]
    configured, chosen = real_path(setting), provenance != "default"
    if chosen and configured in {mount.mountpoint for mount in theirs}:
        return configured  # the caller checks the owner
    own = _places(mine)
    if theirs and not own and not chosen:
        shown = ", ".join(f"{owner_of(mount)}'s at {mount.mountpoint}" for mount in theirs[:SHOWN])
        what = f"you have no mount; only its owner or root may change another ({shown})"
        raise AxonError(what, hint="see axonfs status")
    if len(own) > 1 and not chosen and named_by != "default":
        own = set(map(_home, having_cache(mine, cache)[:1])) or own
    return default_mountpoint(own, configured, chosen=chosen)


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
        raise _several(own)
    return next(iter(own))


def own_mounts() -> list[Mount]:
    """The mounts of this user."""
    return [mount for mount in mounts() if mount.owner == os.geteuid()]


def where_mounted() -> str:
    """Where AxonFS is mounted, or how to mount it."""
    found = [str(mount.mountpoint) for mount in mounts()]
    if not found:
        return HOW_TO_MOUNT
    return f"for the mount at {', '.join(found)}: axonfs status {word(found[0])}"


def having_cache(found: Iterable[Mount], cache: Path) -> list[Mount]:
    """Those with this cache, to which symbolic links may lead. These are followed only if none has
    its very name: the disk of another mount's cache may hang."""
    caches = {mount: each for mount in found if (each := cache_to_ask(mount)) is not None}
    exact = [mount for mount, each in caches.items() if each == cache]
    real = os.path.realpath
    return exact or [mount for mount, each in caches.items() if real(each) == real(cache)]


def cache_to_ask(mount: Mount) -> Path | None:
    """The cache of a mount whose worker answers this user."""
    found = cache_of(mount) if is_ours(mount) else None
    return Path(found) if found else None


def _several(places: Iterable[Path]) -> UsageError:
    listed = sorted(map(str, places))
    return UsageError(f"there are {len(listed)} mounts: {', '.join(listed)}", hint="name one")


def _places(mine: Iterable[Mount]) -> set[Path]:
    """The mountpoints of this user's mounts; if none is mounted, those of running holders."""
    return set(map(_home, mine)) or {
        holder.mountpoint
        for holder in running()
        if holder.owner == os.geteuid() and same_namespace(holder.pid)
    }


def _home(mount: Mount) -> Path:
    """Where the holder mounted it, if it is still there; the other places are bind mounts."""
    holder = holder_of(mount)
    home = holder.mountpoint if holder else mount.mountpoint
    return home if home in places_of(mount.connection) else mount.mountpoint
