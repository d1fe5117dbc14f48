"""Whether AxonFS can be mounted: what `axonfs mount` and `mount.axonfs` check before they do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from axonfs.cli.mount_flags import Flags
from axonfs.cli.output import note
from axonfs.errors import AxonError, BusyError, UsageError
from axonfs.names import word
from axonfs.settings.settings import Settings, load


def checked(flags: Flags) -> Settings:
    """The settings of a mount with these flags, with which it can be mounted.

    Raises:
        AxonError: it cannot.
    """
    from axonfs.connection.libfuse import check_libfuse

    check_libfuse()
    settings = load(flags)
    check_sources(settings)
    check_owner(settings)
    check_metrics(settings)
    return settings


def check_sources(settings: Settings) -> None:
    """Refuse a mount that would be empty."""
    if settings.registries:
        return
    if settings.sources and not settings.offline:
        names = " and ".join(settings.sources)
        note(f"no registry is configured: the mount has only models from {names}")
        return
    has_cache = (settings.cache / "index.lmdb").exists()
    if settings.offline and has_cache:
        return
    hint = "use --registry URL, or axonfs registry add URL to configure one"
    if has_cache:
        hint += "; --offline serves what is in the cache"
    raise UsageError("no registry is configured", hint=hint)


def check_owner(settings: Settings) -> None:
    """Refuse an owner who could not access the files, or whom only root may choose."""
    if settings.uid in (None, os.geteuid()):
        return
    if os.geteuid() != 0:
        raise UsageError("only root may set another owner of the files", hint="leave out --uid")
    if not settings.allow_other:
        what = f"uid {settings.uid} could not access the files"
        raise UsageError(what, hint="add --allow-other")


def check_metrics(settings: Settings) -> None:
    """Refuse a mount whose metrics no library can serve, before anything is mounted."""
    if settings.metrics:
        from axonfs.observe.prometheus import check_library

        check_library()


def prepare_mountpoint(mountpoint: Path) -> Path:
    """Resolve the links in `mountpoint` and check that AxonFS can be mounted there.

    The directory is created if it is missing but its parent exists.

    Raises:
        AxonError: it is not an empty directory, or AxonFS is already mounted there.
    """
    from axonfs.client.health import health, mount_at, real_path
    from axonfs.connection.mountinfo import mounts

    place = real_path(mountpoint)
    for outer in mounts():
        if outer.mountpoint in place.parents:  # compare paths only: the mount may not answer
            what = f"is inside the AxonFS mount at {outer.mountpoint}"
            raise UsageError(what, path=str(place), hint="mount on an empty directory")
    if (present := mount_at(place)) is not None:
        state = health(present)
        if state.state != "dead":  # the new mount unmounts a dead one
            pid = f" by process {state.pid}" if state.pid else ""
            hint = f"axonfs umount {word(place)}"
            raise BusyError(f"already mounted{pid}", path=str(place), hint=hint)
        return place
    try:
        place.mkdir(exist_ok=True)
        entries = os.listdir(place)
    except OSError as exc:
        raise _unusable(place, exc) from exc
    if entries and mount_at(place) is not None:  # to list it had an automounter mount it
        return prepare_mountpoint(place)
    if entries:
        raise UsageError("is not empty", path=str(place), hint="mount on an empty directory")
    return place


def _unusable(place: Path, exc: OSError) -> AxonError:
    if exc.errno == errno.ENOENT:
        what = "cannot be created: its parent directory does not exist"
        return UsageError(what, path=str(place), hint=f"mkdir -p {word(place)}")
    if exc.errno in (errno.ENOTDIR, errno.EEXIST):
        return UsageError("is not a directory", path=str(place))
    return AxonError(f"cannot be a mountpoint: {exc.strerror}", path=str(place))
