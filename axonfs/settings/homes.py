"""Where a user's own files are: the home directory and XDG's directories, if there are any.

A container may run under a user id without an entry in passwd and without HOME (OpenShift draws
such ids). Then there is no home, and only what needs one fails. Just above errors. Any thread.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from axonfs.errors import UsageError


def home() -> Path | None:
    """The user's home directory; None if neither HOME nor passwd has one."""
    named = os.environ.get("HOME", "")
    try:
        named = named or pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return None
    return Path(named) if os.path.isabs(named) else None


def below_home(*names: str, variable: str = "") -> Path | None:
    """A path below the home directory; `variable` may put another directory in place of `names[0]`.

    As XDG has it, a relative path in the variable counts as none.
    """
    base = os.environ.get(variable, "")
    if os.path.isabs(base):
        return Path(base, *names[1:])
    own = home()
    return own.joinpath(*names) if own else None


def expanded(path: str) -> Path:
    """`path` with `~` replaced, or as it is where there is no such home."""
    return Path(os.path.expanduser(path))


def default_cache() -> Path:
    """Where the cache is if nothing says otherwise.

    Raises:
        UsageError: there is no home directory for it.
    """
    if os.geteuid() == 0:
        return Path("/var/cache/axonfs")
    if found := below_home(".cache", "axonfs", variable="XDG_CACHE_HOME"):
        return found
    raise homeless("the cache", "AXONFS_CACHE_DIR")


def default_mountpoint() -> Path:
    """Where `axonfs mount` mounts if nothing says otherwise."""
    own = home()
    return own / "models" if own and os.geteuid() != 0 else Path("/models")


def homeless(what: str, variable: str) -> UsageError:
    """The error of a user without a home directory that `what` would be in."""
    return UsageError(
        f"there is no home directory for {what}: HOME is not set, and user {os.geteuid()} has no"
        " entry in /etc/passwd",
        hint=f"set {variable}, or HOME",
    )
