"""`axonfs mount` and `axonfs umount`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import click

from axonfs.cli.options import LocalPath, cache_option, registry_option
from axonfs.cli.output import echo, note
from axonfs.errors import AxonError, BusyError, UsageError
from axonfs.settings.parsers import LOG_FORMATS, LOG_LEVELS, PREFETCH
from axonfs.settings.settings import Settings, load

if TYPE_CHECKING:
    from axonfs.daemon.possessions import Possessions

Command = TypeVar("Command", bound=Callable[..., Any])
Flags: TypeAlias = Mapping[str, Any]


def mount_options(function: Command) -> Command:
    """What is said of a mount, to `mount` and to its worker."""
    options = [
        registry_option,
        cache_option,
        click.option(
            "--cache-size",
            metavar="SIZE",
            help="Limit of the cache, like 200G; by default a tenth of the disk is left free."
            " [env: AXONFS_CACHE_SIZE]",
        ),
        click.option(
            "--offline/--online",
            default=None,
            help="Send nothing: serve what is in the cache. [env: AXONFS_OFFLINE]",
        ),
        click.option(
            "--prefetch",
            type=click.Choice(PREFETCH),
            help="What the start of a load fetches ahead of its reads: auto (by default), the files"
            " it will read; all, the whole version; off, nothing. [env: AXONFS_PREFETCH]",
        ),
        click.option(
            "--allow-other/--only-me",
            default=None,
            help="Whether other users may read the mount. [env: AXONFS_ALLOW_OTHER]",
        ),
        click.option(
            "--uid",
            metavar="NUMBER",
            help="User who owns the files; another one needs --allow-other. [env: AXONFS_UID]",
        ),
        click.option("--gid", metavar="NUMBER", help="Group of the files. [env: AXONFS_GID]"),
        click.option(
            "--mode",
            metavar="OCTAL",
            help="Mode of the files, like 0440; directories get x where r is. [env: AXONFS_MODE]",
        ),
        click.option(
            "--passthrough/--no-passthrough",
            default=None,
            help="Whether the kernel may read complete files itself, where it can: for root,"
            " from Linux 6.9 on. [env: AXONFS_PASSTHROUGH]",
        ),
        click.option(
            "--log-format",
            type=click.Choice(LOG_FORMATS),
            help="Log lines for people (text, the default) or one JSON object a line."
            " [env: AXONFS_LOG_FORMAT]",
        ),
        click.option(
            "--log-level",
            type=click.Choice(LOG_LEVELS),
            help="The least severe messages in the log; info by default. [env: AXONFS_LOG_LEVEL]",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@click.command
@click.argument("mountpoint", required=False)
@mount_options
@click.option("--foreground", "-f", is_flag=True, help="Stay in the foreground and log to stderr.")
def mount(mountpoint: str | None, foreground: bool, **flags: object) -> None:
    """Show all models as files below MOUNTPOINT.

    It goes on in the background; the command returns once the mount answers. Its log is
    run/mount.log in the cache directory: `axonfs status` names it. Without MOUNTPOINT it
    is the setting `mountpoint`, which is /models for root and ~/models for anyone else. Stop it
    with `axonfs umount`.
    """
    from axonfs.daemon.possessions import inherited

    if (possessions := inherited()) is not None:
        click.get_current_context().exit(_go_on(possessions, {**flags, "mountpoint": mountpoint}))
    settings = load({**flags, "mountpoint": mountpoint})
    check_sources(settings)
    check_owner(settings)
    place = prepare_mountpoint(settings.mountpoint)
    if foreground:
        click.get_current_context().exit(_hold(flags, settings, place))
    from axonfs.cli.background import start

    pid = start(flags, settings, place)
    echo(f"mounted at {place} (pid {pid})")


@click.command(hidden=True)
@click.argument("mountpoint")
@mount_options
def worker(mountpoint: str, **flags: object) -> None:
    """Serve a connection that `axonfs mount` holds; it starts this itself."""
    from axonfs.cli.logs import log_to_stderr
    from axonfs.connection.held import Held
    from axonfs.daemon.worker import work
    from axonfs.settings.applied import apply, fails

    held = Held.take()
    if held is None:
        raise UsageError("only a mount starts its worker", hint="axonfs mount")
    log_to_stderr()  # for what is wrong with the settings
    flags["mountpoint"] = mountpoint
    applied = apply(flags, held.settings, first=held.first)
    settings = applied.settings
    log_to_stderr(settings.log_format, settings.log_level, settings.cache)
    try:
        code = work(applied, held)
    except AxonError as exc:
        fails(str(exc), held.settings)
        raise
    click.get_current_context().exit(code)


def check_sources(settings: Settings) -> None:
    """Refuse a mount that could show nothing."""
    if settings.registries:
        return
    if settings.sources and not settings.offline:
        names = " and ".join(settings.sources)
        note(f"no registry is configured: only models below {names} are there")
        return
    known = (settings.cache / "index.lmdb").exists()
    if settings.offline and known:
        return
    hint = "name one with --registry URL, or for good with axonfs registry add URL"
    if known:
        hint += "; --offline shows what is in the cache"
    raise UsageError("no registry is configured", hint=hint)


def check_owner(settings: Settings) -> None:
    """Refuse an owner of the files who could not get at them, or that only root can give."""
    if settings.uid in (None, os.geteuid()):
        return
    if os.geteuid() != 0:
        raise UsageError("only root can give the files to another user", hint="leave out --uid")
    if not settings.allow_other:
        what = f"uid {settings.uid} could not reach the files"
        raise UsageError(what, hint="add --allow-other")


def prepare_mountpoint(mountpoint: Path) -> Path:
    """The mountpoint with links followed, if it can be mounted on; made if only it is missing.

    Raises:
        AxonError: it is not an empty directory, or AxonFS is already mounted there.
    """
    from axonfs.client.health import health, mount_at, settled
    from axonfs.connection.mountinfo import mounts

    place = settled(mountpoint)
    for outer in mounts():
        if outer.mountpoint in place.parents:  # it is not touched: it may not answer
            what = f"lies in the AxonFS at {outer.mountpoint}"
            raise UsageError(what, path=str(place), hint="mount on an empty directory")
    if (present := mount_at(place)) is not None:
        state = health(present)
        if state.state != "dead":  # a dead one is cleared away by the mount
            pid = f" by process {state.pid}" if state.pid else ""
            raise BusyError(f"already mounted{pid}", path=str(place), hint=f"axonfs umount {place}")
        return place
    try:
        place.mkdir(exist_ok=True)
        entries = os.listdir(place)
    except OSError as exc:
        raise _unusable(place, exc) from exc
    if entries:
        raise UsageError("is not empty", path=str(place), hint="mount on an empty directory")
    return place


def _unusable(place: Path, exc: OSError) -> AxonError:
    if exc.errno == errno.ENOENT:
        what = "cannot be made, its parent does not exist"
        return UsageError(what, path=str(place), hint=f"mkdir -p {place}")
    if exc.errno in (errno.ENOTDIR, errno.EEXIST):
        return UsageError("is not a directory", path=str(place))
    return AxonError(f"cannot be mounted on: {exc.strerror}", path=str(place))


def _hold(flags: Flags, settings: Settings, place: Path) -> int:
    """Make the mount and keep it."""
    from axonfs.cli.background import frozen, take_ready_pipe, worker_command
    from axonfs.cli.logs import log_to_stderr
    from axonfs.daemon.holder import block_signals, hold
    from axonfs.daemon.possessions import acquire

    log_to_stderr(settings.log_format, settings.log_level, settings.cache)
    parent, cache, fixed = take_ready_pipe(), settings.cache, frozen(settings)
    command = worker_command({**flags, **fixed}, cache, place)
    block_signals()
    possessions = acquire(cache, place, allow_other=settings.allow_other, frozen=fixed)
    return hold(possessions, command, parent)


def _go_on(possessions: Possessions, flags: Flags) -> int:
    """Keep the mount that this program had before it was replaced. No setting is read for that: a
    config file that is invalid by now must not cost the mount."""
    from axonfs.cli.background import worker_command
    from axonfs.cli.logs import log_to_stderr
    from axonfs.client.health import settled
    from axonfs.daemon.holder import block_signals, hold
    from axonfs.daemon.possessions import settle

    block_signals()
    log_to_stderr()
    known = possessions.known
    if not known.mountpoint:  # a holder of an earlier version did not say
        with suppress(UsageError):
            known.mountpoint = str(settled(flags["mountpoint"] or load(flags).mountpoint))
    settle(possessions)
    cache, place = Path(known.cache), Path(known.mountpoint)
    with suppress(UsageError):  # the worker tells of it
        settings = load(flags)
        log_to_stderr(settings.log_format, settings.log_level, cache)
    return hold(possessions, worker_command({**flags, **known.frozen}, cache, place))


@click.command
@click.argument("mountpoint", required=False, type=LocalPath("the mountpoint"))
@click.option(
    "--force",
    is_flag=True,
    help="Take it away although it is in use or no longer answers; whoever reads it gets an error.",
)
def umount(mountpoint: Path | None, force: bool) -> None:
    """Unmount MOUNTPOINT.

    Without MOUNTPOINT it is the configured one; if none is configured, the default one or this
    user's only mount.
    The command returns when the mount's processes have ended. They go on while the same mount is
    elsewhere too, as a bind mount or in another mount namespace: then the command says where, and
    --force ends them, also when nothing is mounted at MOUNTPOINT any more.
    """
    from axonfs.cli import unmounting
    from axonfs.cli.default_mount import meant
    from axonfs.client.health import mount_at
    from axonfs.client.other_users import check_ours

    place = meant(mountpoint)
    if (found := mount_at(place)) is not None:
        check_ours(found, "umount")
    remarks = unmounting.unmount(place, force=force)
    note(f"unmounted {place}")
    for remark in remarks:
        note(remark)


@click.command
@click.argument("mountpoint", required=False, type=LocalPath("the mountpoint"))
def restart(mountpoint: Path | None) -> None:
    """Have the mount at MOUNTPOINT go on with what is installed now.

    Without MOUNTPOINT it is the configured one; if none is configured, the default one or this
    user's only mount.
    Its processes are replaced while it stays mounted: readers see a pause. For an upgrade in place,
    and for settings that were edited by hand; those that the mount was started with stay.
    """
    from axonfs.cli import unmounting
    from axonfs.cli.default_mount import meant
    from axonfs.client.health import mount_at
    from axonfs.client.other_users import check_ours

    place = meant(mountpoint)
    found = mount_at(place)
    if found is None:
        raise AxonError("no AxonFS is mounted there", path=str(place), hint="see axonfs status")
    check_ours(found, "restart")
    state = unmounting.restart(found)
    note(f"restarted {place} (worker {state['worker']['pid']})")
    if fault := state.get("settings_fault"):
        note(f"it keeps the settings that it had: {fault}")
