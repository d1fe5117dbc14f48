"""`axonfs mount`, `umount` and `restart`, and the hidden command `worker`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import click

from axonfs.cli.options import LocalPath, cache_option, registry_option, via_option
from axonfs.cli.output import echo, note
from axonfs.errors import AxonError, BusyError, UsageError
from axonfs.names import word
from axonfs.settings.parsers import LOG_FORMATS, LOG_LEVELS, PREFETCH
from axonfs.settings.settings import Settings, load
from axonfs.settings.via import FALLBACKS

if TYPE_CHECKING:
    from axonfs.daemon.possessions import Possessions

Command = TypeVar("Command", bound=Callable[..., Any])
Flags: TypeAlias = Mapping[str, Any]


def mount_options(function: Command) -> Command:
    """The options that `mount` and its worker have."""
    options = [
        registry_option,
        cache_option,
        via_option,
        click.option(
            "--fallback",
            type=click.Choice(FALLBACKS),
            help="Whether a source is asked when none of its site caches answers."
            " [env: AXONFS_FALLBACK]",
        ),
        click.option(
            "--cache-size",
            metavar="SIZE",
            help="Size limit of the cache, like 200G; without it and --keep-free the cache leaves"
            " 10 % of the disk free."
            " [env: AXONFS_CACHE_SIZE]",
        ),
        click.option(
            "--keep-free",
            metavar="SIZE|PERCENT",
            help="What the cache leaves free of its disk, like 50G or 10%; off is nothing."
            " [env: AXONFS_KEEP_FREE]",
        ),
        click.option(
            "--cache-ttl",
            metavar="AGE",
            help="How long the cache keeps what nothing uses, like 30d; off, the default, is for"
            " ever. [env: AXONFS_CACHE_TTL]",
        ),
        click.option(
            "--cache-quota",
            "cache_quotas",
            metavar="NAMESPACE=SIZE|PERCENT",
            multiple=True,
            help="What the models of a namespace may take of the cache, like nlp=100G or hf=50%;"
            " may be given more than once. [env: AXONFS_CACHE_QUOTAS]",
        ),
        click.option(
            "--offline/--online",
            default=None,
            help="Send no requests: serve only what is in the cache. [env: AXONFS_OFFLINE]",
        ),
        click.option(
            "--bandwidth",
            metavar="RATE",
            help="Bytes per second to receive from all sources together at the most, like 500M;"
            " what a reader waits for goes first. 64K is the lowest limit; off, the default, is"
            " none. [env: AXONFS_BANDWIDTH]",
        ),
        click.option(
            "--prefetch",
            type=click.Choice(PREFETCH),
            help="What to fetch ahead when a program begins to load a model: auto (the default),"
            " the files that it will read; all, the whole version; off, nothing."
            " [env: AXONFS_PREFETCH]",
        ),
        click.option(
            "--allow-other/--only-me",
            default=None,
            help="Whether other users may read the mount. [env: AXONFS_ALLOW_OTHER]",
        ),
        click.option(
            "--uid",
            metavar="NUMBER",
            help="Owner of the files; another user than yourself needs --allow-other."
            " [env: AXONFS_UID]",
        ),
        click.option("--gid", metavar="NUMBER", help="Group of the files. [env: AXONFS_GID]"),
        click.option(
            "--mode",
            metavar="OCTAL",
            help="Mode of the files, like 0440; directories get x wherever files have r."
            " [env: AXONFS_MODE]",
        ),
        click.option(
            "--passthrough/--no-passthrough",
            default=None,
            help="Whether the kernel may read complete files itself. This needs root and"
            " Linux 6.9. [env: AXONFS_PASSTHROUGH]",
        ),
        click.option(
            "--log-format",
            type=click.Choice(LOG_FORMATS),
            help="Log lines for people (text, the default) or one JSON object per line."
            " [env: AXONFS_LOG_FORMAT]",
        ),
        click.option(
            "--log-level",
            type=click.Choice(LOG_LEVELS),
            help="Lowest level of messages in the log; info by default. [env: AXONFS_LOG_LEVEL]",
        ),
        click.option(
            "--trace",
            metavar="FILE",
            help="Record opens, reads, requests and waits in FILE, for axonfs trace show."
            " [env: AXONFS_TRACE]",
        ),
        click.option(
            "--metrics",
            metavar="[ADDRESS:]PORT",
            help="Serve metrics for Prometheus, /healthz and /readyz there. ADDRESS is 127.0.0.1 by"
            " default; unix:PATH is a Unix socket. [env: AXONFS_METRICS]",
        ),
        click.option(
            "-o",
            "--option",
            "options",
            metavar="OPTIONS",
            multiple=True,
            help="Mount options as in /etc/fstab, like streams=8,noexec: every setting, and what"
            " docs/mounting.md lists. Other flags go before them.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@click.command
@click.argument("mountpoint", required=False)
@mount_options
@click.option("--foreground", "-f", is_flag=True, help="Stay in the foreground and log to stderr.")
@click.option(
    "--guard",
    metavar="SOCKET",
    help="Stay in the foreground, and leave copies of the mount's descriptors with the process that"
    " listens at SOCKET, axonfs csi. The mount then outlives this process: the next one goes on.",
)
def mount(mountpoint: str | None, foreground: bool, guard: str | None, **flags: object) -> None:
    """Mount all models as ordinary directories at MOUNTPOINT.

    The mount runs in the background; the command returns once it answers. Its log is run/mount.log
    in the cache directory; `axonfs status` shows the path. MOUNTPOINT defaults to the setting
    `mountpoint`, which is /models for root and ~/models for other users. To stop it, run `axonfs
    umount`.
    """
    from axonfs.daemon.possessions import inherited

    if (possessions := inherited()) is not None:
        given = with_options(flags, strict=False)
        click.get_current_context().exit(_resume(possessions, {**given, "mountpoint": mountpoint}))
    given = with_options(flags)
    if guard is not None:
        from axonfs.cli.guarded import keep_guarded

        found = load({**given, "mountpoint": mountpoint})
        click.get_current_context().exit(keep_guarded(given, found, guard))
    settings = checked({**given, "mountpoint": mountpoint})
    place = prepare_mountpoint(settings.mountpoint)
    if foreground:
        click.get_current_context().exit(_hold(given, settings, place))
    from axonfs.cli.background import start

    pid = start(given, settings, place)
    echo(f"mounted at {place} (pid {pid})")


def with_options(flags: Flags, *, strict: bool = True) -> dict[str, Any]:
    """The flags of a mount with those that its -o has; AXONFS_CONFIG becomes their config file.

    Args:
        strict: whether to refuse unknown options. A mount that runs must not end because of them.
    """
    from axonfs.settings.mount_options import parse_options, refuse_unknown

    given = {name: value for name, value in flags.items() if value not in (None, ())}
    options = parse_options(given.pop("options", ()), "-o")
    if strict:
        refuse_unknown(options, "-o")
    if options.remount:
        raise UsageError("axonfs mount cannot remount", hint="use mount -o remount,…")
    if options.config is not None:
        os.environ["AXONFS_CONFIG"] = str(options.config)
    return {**options.flags, "fsname": options.fsname, "noexec": options.noexec, **given}


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


@click.command(hidden=True)
@click.argument("mountpoint")
@mount_options
def worker(mountpoint: str, **flags: object) -> None:
    """Serve the connection of a running `axonfs mount`, which starts this command itself."""
    from axonfs.cli.logs import log_to_stderr
    from axonfs.connection.held import Held
    from axonfs.daemon.worker import work
    from axonfs.settings.applied import apply, fails

    held = Held.take()
    if held is None:
        raise UsageError("only a mount starts its worker", hint="axonfs mount")
    log_to_stderr()  # first with defaults, for errors in the settings
    given = {**with_options(flags, strict=False), "mountpoint": mountpoint}
    applied = apply(given, held.settings, first=held.first)
    settings = applied.settings
    log_to_stderr(settings.log_format, settings.log_level, settings.cache)
    try:
        code = work(applied, held)
    except AxonError as exc:
        fails(str(exc), held.settings)
        raise
    click.get_current_context().exit(code)


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


def _hold(flags: Flags, settings: Settings, place: Path) -> int:
    """Mount, and hold the mount until it is unmounted."""
    from axonfs.cli.background import frozen, take_ready_pipe, worker_command
    from axonfs.cli.logs import log_to_stderr
    from axonfs.daemon.holder import block_signals, hold
    from axonfs.daemon.possessions import acquire, manner_of

    log_to_stderr(settings.log_format, settings.log_level, settings.cache)
    parent, cache, fixed = take_ready_pipe(), settings.cache, frozen(settings)
    command = worker_command({**flags, **fixed}, cache, place)
    block_signals()
    possessions = acquire(cache, place, manner_of(settings, flags), fixed)
    return hold(possessions, command, parent)


def _resume(possessions: Possessions, flags: Flags) -> int:
    """Continue to hold the mount after `execv` replaced this program.

    This reads no settings: an invalid config file must not end the mount.
    """
    from axonfs.cli.background import worker_command
    from axonfs.cli.logs import log_to_stderr
    from axonfs.client.health import real_path
    from axonfs.daemon.holder import block_signals, hold
    from axonfs.daemon.possessions import settle

    block_signals()
    log_to_stderr()
    known = possessions.known
    if not known.mountpoint:  # a holder of an earlier version did not record it
        with suppress(UsageError):
            known.mountpoint = str(real_path(flags["mountpoint"] or load(flags).mountpoint))
    settle(possessions)
    cache, place = Path(known.cache), Path(known.mountpoint)
    with suppress(UsageError):  # the worker reports the error
        settings = load(flags)
        log_to_stderr(settings.log_format, settings.log_level, cache)
    return hold(possessions, worker_command({**flags, **known.frozen}, cache, place))


@click.command
@click.argument("mountpoint", required=False, type=LocalPath("the mountpoint"))
@click.option(
    "--force",
    is_flag=True,
    help="Unmount even if it is in use or does not answer; programs that read it get an error.",
)
def umount(mountpoint: Path | None, force: bool) -> None:
    """Unmount MOUNTPOINT.

    MOUNTPOINT defaults to the configured one; if none is configured, to the default mountpoint or
    this user's only mount. Of several it is the one with the cache that AXONFS_CACHE_DIR or the
    config file names.
    The command returns when the mount's processes have ended. They keep running while the same
    mount is also elsewhere, as a bind mount or in another mount namespace. Then the command says
    where, and --force ends them, even if nothing is mounted at MOUNTPOINT any more.
    """
    from axonfs.cli import unmounting
    from axonfs.cli.default_mount import place_to_change
    from axonfs.client.health import mount_at
    from axonfs.client.other_users import check_ours

    place = place_to_change(mountpoint)
    if (found := mount_at(place)) is not None:
        check_ours(found, "umount")
    remarks = unmounting.unmount(place, force=force)
    note(f"unmounted {place}")
    for remark in remarks:
        note(remark)


@click.command
@click.argument("mountpoint", required=False, type=LocalPath("the mountpoint"))
def restart(mountpoint: Path | None) -> None:
    """Restart the mount at MOUNTPOINT with the installed version.

    MOUNTPOINT defaults to the configured one; if none is configured, to the default mountpoint or
    this user's only mount. Of several it is the one with the cache that AXONFS_CACHE_DIR or the
    config file names.
    Replaces the mount's processes while it stays mounted: readers see a pause. Use it after an
    upgrade, or after editing the config file by hand. Flags and variables that the mount was
    started with stay in force.
    """
    from axonfs.cli import unmounting
    from axonfs.cli.default_mount import place_to_change
    from axonfs.client.health import mount_at
    from axonfs.client.other_users import check_ours

    place = place_to_change(mountpoint)
    found = mount_at(place)
    if found is None:
        raise AxonError("no AxonFS is mounted there", path=str(place), hint="see axonfs status")
    check_ours(found, "restart")
    state = unmounting.restart(found)
    note(f"restarted {place} (worker {state['worker']['pid']})")
    if fault := state.get("settings_fault"):
        note(f"it uses its previous settings: {fault}")
