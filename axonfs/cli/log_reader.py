"""`axonfs logs`: shows the log of a mount, wherever it is.

A mount in the background logs to a file of its cache; one in the foreground to where its standard
error leads, which for a systemd unit is the journal. Blocking.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click

from axonfs.cli.default_mount import mount_to_look_at
from axonfs.cli.logfile import LOG
from axonfs.cli.options import LocalPath, cache_option, make_target
from axonfs.client.health import real_path
from axonfs.client.target import Target
from axonfs.daemon.holders import Running, holder_at, holder_of
from axonfs.errors import AxonError, NotFoundError
from axonfs.names import printable, word

FOLLOW_PAUSE = 0.3
_LONGEST = 100_000  # characters of one line that are shown: a traceback in JSON is one line
_UNITS = (".service", ".scope")


@click.command
@click.argument("mountpoint", required=False, type=LocalPath("the mountpoint"))
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines until interrupted.")
@click.option(
    "-n",
    "--lines",
    default=100,
    show_default=True,
    type=click.IntRange(0),
    help="How many of the last lines to show first.",
)
@cache_option
def logs(mountpoint: Path | None, follow: bool, lines: int, cache: str | None) -> None:
    """Show the log of a mount.

    Of a mount in the background this is a file in its cache, also after it has ended; of a systemd
    unit the journal. MOUNTPOINT defaults as for `axonfs status`: to the mount that uses the
    configured cache, or used it last, or the only mount.
    """
    path = _path(mountpoint, cache, lines, follow=follow)
    try:
        for line in _lines(path, lines, follow=follow):
            click.echo(printable(line.rstrip("\n"), _LONGEST))
    except OSError as exc:
        raise AxonError(f"the log cannot be read: {exc.strerror}", path=str(path)) from exc


def _path(mountpoint: Path | None, cache: str | None, lines: int, *, follow: bool) -> Path:
    """The log file; where the log is the journal, this process becomes journalctl.

    Raises:
        AxonError: there is no log that can be shown.
    """
    target = make_target((), cache)
    holder = _holder(mountpoint, target)
    if holder is not None:
        return _of_holder(holder, lines, follow=follow)
    path = target.settings.cache / LOG
    if not path.exists():
        what = "there is no log: no mount in the background has used this cache"
        raise NotFoundError(what, path=str(path), hint="name the mountpoint, or --cache DIR")
    return path


def _holder(mountpoint: Path | None, target: Target) -> Running | None:
    """The holder of the mount; None if no mountpoint is given and no mount of this user is there.

    Raises:
        NotFoundError: no mount of this user is at `mountpoint`.
        UsageError: none is given, and this user has several mounts.
    """
    if mountpoint is not None:
        if (found := holder_at(real_path(mountpoint))) is None:
            what = "no mount of yours is there"
            raise NotFoundError(what, path=str(mountpoint), hint="see axonfs status")
        return found
    try:
        return holder_of(mount_to_look_at(target))
    except NotFoundError:  # it has ended
        return None


def _of_holder(holder: Running, lines: int, *, follow: bool) -> Path:
    """Where the standard error of a holder leads.

    Raises:
        AxonError: not to a file, or the holder has ended meanwhile.
    """
    try:
        place = os.readlink(f"/proc/{holder.pid}/fd/2").removesuffix(" (deleted)")
    except OSError as exc:
        what, hint = "the mount has just ended", f"axonfs logs --cache {word(holder.cache)}"
        raise NotFoundError(what, path=str(holder.mountpoint), hint=hint) from exc
    if place.startswith("socket:"):
        _read_journal(holder, lines, follow=follow)
    own = holder.cache / LOG
    if Path(place) in (own, own.with_suffix(".log.1")):
        return own
    if os.path.isfile(place):
        return Path(place)
    what = f"its log goes to {printable(place)} of process {holder.pid}"
    raise AxonError(what, path=str(holder.mountpoint), hint="look there")


def _read_journal(holder: Running, lines: int, *, follow: bool) -> None:
    """Become journalctl, which shows the log of the holder's unit.

    Raises:
        AxonError: it is not installed.
    """
    group = Path(f"/proc/{holder.pid}/cgroup").read_text().strip()
    unit = group.rpartition("/")[2]
    which = [f"_PID={pid}" for pid in (holder.pid, *holder.workers)]
    if unit.endswith(_UNITS):
        which = [*(["--user"] if "/user@" in group else []), f"--unit={unit}"]
    program = shutil.which("journalctl")
    if program is None:
        what = "its log is in the journal, and journalctl is not installed"
        raise AxonError(what, path=str(holder.mountpoint))
    follows = ["--follow"] if follow else []
    os.execv(program, ["journalctl", *which, f"--lines={lines}", "--output=cat", *follows])


def _lines(path: Path, count: int, *, follow: bool) -> Iterator[str]:
    """The last lines, also of before the last rotation, and then those that are added."""
    last: deque[str] = deque(maxlen=count)
    before, file = path.with_suffix(".log.1"), _opened(path)
    try:
        if path.name == LOG.name and before.exists():
            with _opened(before) as earlier:
                last.extend(earlier)
        last.extend(file)
        rest = ""
        if follow and last and not last[-1].endswith("\n"):
            rest = last.pop()
        yield from last
        while follow:
            following = _successor(file, path)  # before the last lines of this one are read
            while piece := file.readline():
                rest += piece
                if rest.endswith("\n"):
                    yield rest
                    rest = ""
            if following:
                file.close()
                file = following
            else:
                time.sleep(FOLLOW_PAUSE)
    finally:
        file.close()


def _opened(path: Path) -> TextIO:
    return path.open(errors="replace")


def _successor(file: TextIO, path: Path) -> TextIO | None:
    """The file at `path` if that is no longer `file`."""
    try:
        same = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        return None if same else _opened(path)
    except FileNotFoundError:  # between the two steps of a rotation
        return None
