"""`axonfs mount` and `axonfs umount`."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import click

from axonfs.cli.options import cache_option, registry_option
from axonfs.cli.output import echo, note
from axonfs.config import Settings, load
from axonfs.errors import AxonError, BusyError, UsageError


@click.command
@click.argument("mountpoint", required=False)
@registry_option
@cache_option
@click.option(
    "--cache-size",
    metavar="SIZE",
    help="Limit of the cache, like 200G; by default a tenth of the disk is left free."
    " [env: AXONFS_CACHE_SIZE]",
)
@click.option("--foreground", "-f", is_flag=True, help="Stay in the foreground and log to stderr.")
@click.option(
    "--offline/--online",
    default=None,
    help="Send nothing: serve what is in the cache. [env: AXONFS_OFFLINE]",
)
@click.option(
    "--allow-other/--only-me",
    default=None,
    help="Whether other users may read the mount. [env: AXONFS_ALLOW_OTHER]",
)
@click.option(
    "--passthrough/--no-passthrough",
    default=None,
    help="Whether the kernel may read complete files itself, where it can (root, Linux 6.9)."
    " [env: AXONFS_PASSTHROUGH]",
)
def mount(
    mountpoint: str | None,
    registries: tuple[str, ...],
    cache: str | None,
    cache_size: str | None,
    foreground: bool,
    offline: bool | None,
    allow_other: bool | None,
    passthrough: bool | None,
) -> None:
    """Show all models as files below MOUNTPOINT.

    It goes on in the background; the command returns once the mount answers. Without MOUNTPOINT it
    is the setting `mountpoint`, which is /models for root and ~/models for anyone else. Stop it
    with `axonfs umount`.
    """
    settings = load(
        {
            "mountpoint": mountpoint,
            "registries": registries,
            "cache": cache,
            "cache_size": cache_size,
            "offline": offline,
            "allow_other": allow_other,
            "passthrough": passthrough,
        }
    )
    check_sources(settings)
    place = prepare_mountpoint(settings.mountpoint, create=mountpoint is None)
    if foreground:
        _run_here(settings, place)
    else:
        from axonfs.cli.background import start

        pid = start(settings, place)
        echo(f"mounted at {place} (pid {pid})")


def check_sources(settings: Settings) -> None:
    """Refuse a mount that could show nothing."""
    if settings.registries:
        return
    known = (settings.cache / "index.lmdb").exists()
    if settings.offline and known:
        return
    hint = "name one with --registry URL, or for good with axonfs registry add URL"
    if known:
        hint += "; --offline shows what is in the cache"
    raise UsageError("no registry is configured", hint=hint)


def prepare_mountpoint(mountpoint: Path, *, create: bool) -> Path:
    """The mountpoint with links followed, if it can be mounted on.

    Args:
        create: make the directory if it is missing (the default place, which nobody typed).

    Raises:
        AxonError: it is not an empty directory, or AxonFS is already mounted there.
    """
    from axonfs.cli.mounts import health, mount_at, settled

    place = settled(mountpoint)
    if (present := mount_at(place)) is not None:
        state = health(present)
        if state.state != "dead":  # a dead one is cleared away by the mount
            pid = f" by process {state.pid}" if state.pid else ""
            raise BusyError(f"already mounted{pid}", path=str(place), hint=f"axonfs umount {place}")
        return place
    try:
        if create:
            place.mkdir(exist_ok=True)
        entries = os.listdir(place)
    except OSError as exc:
        raise _unusable(place, exc) from exc
    if entries:
        raise UsageError("is not empty", path=str(place), hint="mount on an empty directory")
    return place


def _unusable(place: Path, exc: OSError) -> AxonError:
    if exc.errno == errno.ENOENT:
        return UsageError("does not exist", path=str(place), hint=f"mkdir -p {place}")
    if exc.errno in (errno.ENOTDIR, errno.EEXIST):
        return UsageError("is not a directory", path=str(place))
    return AxonError(f"cannot be mounted on: {exc.strerror}", path=str(place))


def _run_here(settings: Settings, place: Path) -> None:
    from axonfs.cli.background import take_ready_pipe
    from axonfs.cli.logs import log_to_stderr
    from axonfs.mount import run

    log_to_stderr()
    run(settings, place, ready=take_ready_pipe())


@click.command
@click.argument("mountpoint")
@click.option(
    "--force",
    is_flag=True,
    help="Take it away although it is in use or no longer answers; whoever reads it gets an error.",
)
def umount(mountpoint: str, force: bool) -> None:
    """Unmount MOUNTPOINT.

    The command returns when the mount's process has ended.
    """
    from axonfs.cli import unmounting
    from axonfs.cli.mounts import mount_at, settled

    place = settled(Path(mountpoint))
    found = mount_at(place)
    if found is None:
        raise AxonError("no AxonFS is mounted there", path=str(place), hint="see axonfs status")
    unmounting.unmount(found, force=force)
    note(f"unmounted {place}")
