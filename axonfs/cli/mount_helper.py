"""The program `mount.axonfs`, which mount(8) runs for the types axonfs and fuse.axonfs.

It takes the arguments that mount(8) gives its helpers, and has their exit codes. The mount is that
of `axonfs mount`. A remount has the running mount take other settings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from axonfs.cli.output import note
from axonfs.cli.running import run
from axonfs.errors import AxonError, StoppedError, UsageError
from axonfs.names import printable
from axonfs.settings.mount_options import MountOptions, parse_options, refuse_unknown

# Sources that mean the registries of the config file. The kernel shows `axonfs` for them.
CONFIGURED = ("none", "axonfs", "-", "")
# Source: mount(8), "EXIT STATUS".
WRONG_USAGE, INTERRUPTED, FAILED = 1, 8, 32
_CODES = {0: 0, UsageError.exit_code: WRONG_USAGE, StoppedError.exit_code: INTERRUPTED}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return an exit code of mount(8)."""
    return _CODES.get(run(mount_axonfs, argv, "mount.axonfs"), FAILED)


@click.command(
    "mount.axonfs",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.argument("source")
@click.argument("mountpoint")
@click.option("-o", "texts", metavar="OPTIONS", multiple=True, help="Mount options.")
@click.option("-f", "fake", is_flag=True, help="Check everything, and do not mount.")
@click.option("-n", "no_mtab", is_flag=True, help="Ignored: there is no /etc/mtab to write.")
@click.option("-s", "sloppy", is_flag=True, help="Warn of unknown options instead of failing.")
@click.option("-v", "verbose", is_flag=True, help="Say what is mounted.")
@click.option("-r", "read_only", is_flag=True, help="Ignored: the mount is always read-only.")
@click.option("-w", "writable", is_flag=True, help="Ignored: the mount is always read-only.")
@click.option("-N", "namespace", metavar="NS", help="Mount in this mount namespace: a pid, a path.")
@click.option("-t", "filesystem", metavar="TYPE", help="Ignored: it is axonfs or fuse.axonfs.")
def mount_axonfs(
    source: str,
    mountpoint: str,
    texts: tuple[str, ...],
    fake: bool,
    sloppy: bool,
    verbose: bool,
    namespace: str | None,
    **ignored: object,
) -> None:
    """Mount the models of SOURCE at MOUNTPOINT, for mount(8) and /etc/fstab.

    SOURCE is a registry, or several with blanks between them (\\040 in /etc/fstab). `none` and
    `axonfs` mean the registries of the config file. Options are the settings of a mount.
    """
    if namespace:
        switches = [word for word, on in (("-f", fake), ("-s", sloppy), ("-v", verbose)) if on]
        lists = [word for text in texts for word in ("-o", text)]
        _enter(namespace, [*switches, *lists, "--", source, mountpoint])
    options = parse_options(texts)
    if sloppy:
        for name in options.unknown:
            note(f"mount options: '{printable(name)}' is unknown, and left out")
    else:
        refuse_unknown(options)
    if options.config is not None:
        os.environ["AXONFS_CONFIG"] = str(options.config)
    if options.remount:
        return _remount(source, Path(mountpoint), options)
    return _mount(source, mountpoint, options, fake=fake, verbose=verbose)


def _mount(
    source: str, mountpoint: str, options: MountOptions, *, fake: bool, verbose: bool
) -> None:
    from axonfs.cli.background import start
    from axonfs.cli.mount_checks import checked, prepare_mountpoint

    flags = _flags(source, options)
    settings = checked({**flags, "mountpoint": mountpoint})
    if verbose or fake:
        names = " ".join((*settings.registries, *settings.sources)) or "the cache"
        note(f"{'would mount' if fake else 'mounting'} {names} at {settings.mountpoint}")
    if not fake:
        start(flags, settings, prepare_mountpoint(settings.mountpoint))


def _flags(source: str, options: MountOptions) -> dict[str, Any]:
    """The flags of `axonfs mount`: the source's registries go before those of options."""
    flags = {**options.flags, "noexec": options.noexec}
    if source in CONFIGURED:
        return {**flags, "fsname": options.fsname}
    registries = [*source.split(), *flags.get("registries", ())]
    return {**flags, "registries": registries, "fsname": options.fsname or source}


def _remount(source: str, mountpoint: Path, options: MountOptions) -> None:
    """Have the mount take the options; settings that they do not name stay."""
    from axonfs.cli.reload import remount
    from axonfs.client.health import mount_at
    from axonfs.client.other_users import check_ours
    from axonfs.connection.mountinfo import source_at
    from axonfs.connection.mounting import set_noexec
    from axonfs.daemon.holders import holder_of

    mount = mount_at(mountpoint)
    if mount is None:
        what = "no AxonFS is mounted there"
        raise AxonError(what, path=str(mountpoint), hint="mount it without remount")
    check_ours(mount, "remount")
    holder = holder_of(mount)
    if holder is None:
        raise AxonError("its process cannot be found", path=str(mountpoint), hint="axonfs status")
    for name, wanted, present in (
        ("fsname", options.fsname, source_at(mount.mountpoint)),
        ("config", options.config, holder.config),
    ):
        if wanted not in (None, present):
            hint = "unmount it, and mount it again"
            raise UsageError(f"{name} cannot change while the mount lasts", hint=hint)
    flags = dict(options.flags)
    given = [] if source in (*CONFIGURED, source_at(mount.mountpoint)) else source.split()
    if given or "registries" in flags:
        flags["registries"] = [*given, *flags.get("registries", ())]
    for remark in remount(holder, flags):
        note(remark)
    if os.geteuid() == 0:  # mount(8) repeats a noexec that shall stay
        set_noexec(mount.mountpoint, noexec=bool(options.noexec))


def _enter(namespace: str, words: Sequence[str]) -> None:
    """Run this program with other words in another mount namespace."""
    path = f"/proc/{namespace}/ns/mnt" if namespace.isdecimal() else namespace
    program = [sys.executable, "-P", "-m", "axonfs.cli.mount_helper", *words]
    try:
        os.execvp("nsenter", ["nsenter", f"--mount={path}", "--", *program])
    except OSError as exc:
        raise AxonError(f"cannot run nsenter: {exc.strerror}", hint="install util-linux") from exc


if __name__ == "__main__":
    sys.exit(main())
