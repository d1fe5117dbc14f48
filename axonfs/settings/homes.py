"""Where each user's own files are: the home directory and the XDG directories.

A container may run with a user id that has no passwd entry and no HOME (OpenShift assigns such
ids). Such a user has no home directory, and only operations that need one fail. Above errors.py.
Any thread.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from axonfs.errors import UsageError


def home() -> Path | None:
    """The user's home directory; None if neither HOME nor passwd names one."""
    named = os.environ.get("HOME", "")
    try:
        named = named or pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return None
    return Path(named) if os.path.isabs(named) else None


def below_home(*names: str, variable: str = "") -> Path | None:
    """A path below the home directory, or None without one.

    Args:
        variable: an environment variable whose value replaces the directory `names[0]`. By the XDG
            specification a relative path in it is ignored.
    """
    base = os.environ.get(variable, "")
    if os.path.isabs(base):
        return Path(base, *names[1:])
    own = home()
    return own.joinpath(*names) if own else None


def expanded(path: str) -> Path:
    """`path` with `~` expanded, or unchanged if that home directory is unknown."""
    return Path(os.path.expanduser(path))


def default_cache() -> Path:
    """The default cache directory.

    Raises:
        UsageError: the user has no home directory.
    """
    if os.geteuid() == 0:
        return Path("/var/cache/axonfs")
    if found := below_home(".cache", "axonfs", variable="XDG_CACHE_HOME"):
        return found
    raise homeless("the cache", "AXONFS_CACHE_DIR")


def default_mountpoint() -> Path:
    """The default mountpoint of `axonfs mount`."""
    own = home()
    return own / "models" if own and os.geteuid() != 0 else Path("/models")


def homeless(what: str, variable: str) -> UsageError:
    """The error for `what`, which needs a home directory that this user lacks."""
    return UsageError(
        f"no home directory for {what}: HOME is not set, and user {os.geteuid()} has no"
        " entry in /etc/passwd",
        hint=f"set {variable}, or HOME",
    )
