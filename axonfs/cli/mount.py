"""`axonfs mount`, `umount` and `restart`, and the hidden command `worker`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from axonfs.cli.mount_checks import checked, prepare_mountpoint
from axonfs.cli.mount_flags import Flags, mount_options, with_options
from axonfs.cli.options import LocalPath
from axonfs.cli.output import echo, note
from axonfs.errors import AxonError, UsageError
from axonfs.settings.settings import Settings, load

if TYPE_CHECKING:
    from axonfs.daemon.possessions import Possessions


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
