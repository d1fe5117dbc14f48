"""`axonfs profile`: sums up what programs do with a mount: by file, program and operation.

The worker counts and sends the sums of each second; a worker that is replaced meanwhile is asked
again. Blocking.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from axonfs.call import Event
from axonfs.cli.columns import clip_start
from axonfs.cli.mount_state import LiveState
from axonfs.cli.options import LocalPath, cache_option, json_option, make_target
from axonfs.cli.output import echo, echo_json, note, table
from axonfs.errors import UnavailableError
from axonfs.names import printable
from axonfs.units import counted, size

VIEWS = ("file", "program", "operation")
SECONDS = 10.0  # in a pipe
AGAIN, PATIENCE = 0.3, 20.0  # seconds between questions to the next worker, and for all of them
# Names in a view; what others do is summed up under OTHERS, as in daemon/profile.py, which costs
# too much to import here.
MOST_NAMES, OTHERS = 100_000, "(others)"
_TOP = 10  # rows of each view where all three are shown
_FIGURES = 54  # columns of a terminal that they take
_PASSED = "open (passed through)"


@dataclass(slots=True)
class Sum:
    """What is added up for one name; `seconds` are those that the mount took to answer."""

    count: int = 0
    bytes: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    errors: int = 0
    processes: set[int] = field(default_factory=set)

    def add(
        self, pid: int, count: int, got: int, seconds: float, slowest: float, errors: int
    ) -> None:
        """Add what one process did."""
        self.count += count
        self.bytes += got
        self.seconds += seconds
        self.slowest = max(self.slowest, slowest)
        self.errors += errors
        if pid:
            self.processes.add(pid)


class Profile:
    """The sums so far."""

    def __init__(self) -> None:
        self.views: dict[str, dict[str, Sum]] = {view: {} for view in VIEWS}
        self.seconds = 0.0
        self.left_out = 0
        self.workers = 0  # that were replaced meanwhile
        self._before = 0.0
        self._silent = False  # nothing was heard of the next worker yet

    def add(self, event: Event) -> None:
        """Add what a worker counted in a second."""
        self._silent = False
        self.seconds = self._before + float(event["seconds"])
        self.left_out += int(event["left_out"])
        for path, program, pid, operation, *counts in event["rows"]:
            for view, name in zip(VIEWS, (path, program or "?", operation), strict=True):
                self._sum(self.views[view], name).add(pid, *counts)

    def _sum(self, sums: dict[str, Sum], name: str) -> Sum:
        if name not in sums and len(sums) >= MOST_NAMES:
            name = OTHERS
        return sums.setdefault(name, Sum())

    def next_worker(self) -> None:
        """Note that the worker ended, or that the next one cannot be asked yet."""
        self.workers += not self._silent
        self._silent = True
        self._before = self.seconds

    def rows(self, view: str) -> list[tuple[str, Sum]]:
        """The rows of a view, those that took longest first."""
        return sorted(self.views[view].items(), key=lambda row: (-row[1].seconds, row[0]))

    @property
    def passed_through(self) -> int:
        """Opens of files that the kernel then reads itself."""
        found = self.views["operation"].get(_PASSED)
        return found.count if found else 0

    def report(self, views: tuple[str, ...]) -> dict[str, Any]:
        """For programs."""
        return {
            "seconds": self.seconds,
            "left_out": self.left_out,
            "workers_replaced": self.workers,
            "opens_passed_through": self.passed_through,
            **{
                f"by_{view}": [
                    {
                        view: name,
                        "count": each.count,
                        "bytes": each.bytes,
                        "seconds": each.seconds,
                        "slowest": each.slowest,
                        "errors": each.errors,
                        "processes": len(each.processes),
                    }
                    for name, each in self.rows(view)
                ]
                for view in views
            },
        }


@click.command
@click.argument("mountpoint", required=False, type=LocalPath("the mountpoint"))
@click.option(
    "--seconds",
    metavar="N",
    type=click.FloatRange(0.1, 86400 * 30),
    help="How long to count: in a terminal until interrupted, else 10 seconds.",
)
@click.option("--by", type=click.Choice(VIEWS), help="Show this view alone, with all of its rows.")
@cache_option
@json_option
def profile(
    mountpoint: Path | None, seconds: float | None, by: str | None, cache: str | None, as_json: bool
) -> None:
    """Sum up what programs do with a mount.

    By file, by program and by operation: how many operations the mount answered, the bytes that
    were read, the seconds that the answers took together, the slowest one, and errors. In a
    terminal the sums are shown again every second, else once at the end. A file that is complete is
    read by the kernel itself where that is possible; then its opens are counted, and its reads are
    not. MOUNTPOINT defaults to the mount with the configured cache, or the only mount.
    """
    live = LiveState(mountpoint, make_target((), cache))
    views = (by,) if by else VIEWS
    moving = sys.stdout.isatty() and not as_json
    if seconds is None and not moving:
        seconds = SECONDS
    found = Profile()
    try:
        _follow(live, found, seconds, lambda: _show(found, views, moving=True) if moving else None)
    finally:  # after Ctrl-C too
        if as_json:
            echo_json(found.report(views))
        elif not moving:
            _show(found, views, moving=False)


def _follow(
    live: LiveState, found: Profile, seconds: float | None, shown: Callable[[], None]
) -> None:
    """Add up what the mount counts, for `seconds` or without end.

    Raises:
        AxonError: the mount cannot be asked, or does not answer any more.
    """
    until = time.monotonic() + (seconds if seconds is not None else float("inf"))
    last = time.monotonic()

    def hear(event: Event) -> None:
        nonlocal last
        last = time.monotonic()
        found.add(event)
        shown()

    while (left := until - time.monotonic()) > 0:
        try:
            live.ask({"op": "profile", "seconds": left if seconds is not None else None}, hear)
            return
        except UnavailableError:
            if time.monotonic() - last > PATIENCE:
                raise
        found.next_worker()
        time.sleep(AGAIN)


def _show(found: Profile, views: tuple[str, ...], *, moving: bool) -> None:
    most = _rows_that_fit(len(views)) if moving else None
    if most is None and len(views) > 1:
        most = _TOP
    longest = 1000
    if moving:
        longest = max(shutil.get_terminal_size().columns - _FIGURES, 12)
        click.clear()
    echo(f"counted for {found.seconds:.0f} s")
    for view in views:
        rows = found.rows(view)
        click.echo("")
        table(
            (view.upper(), "COUNT", "READ", "SECONDS", "SLOWEST", "ERRORS", "PIDS"),
            (
                _cells(clip_start(printable(name, 1000), longest), each)
                for name, each in rows[:most]
            ),
        )
        if len(rows) > len(rows[:most]):
            echo(f"and {len(rows) - len(rows[:most])} more: axonfs profile --by {view}")
    for text in _remarks(found):
        note(text) if not moving else echo(text)


def _rows_that_fit(views: int) -> int:
    return max((shutil.get_terminal_size().lines - 3) // views - 3, 3)


def _cells(name: str, each: Sum) -> tuple[str, ...]:
    return (
        name,
        str(each.count),
        size(each.bytes),
        f"{each.seconds:.3f}",
        f"{each.slowest:.6f}",
        str(each.errors),
        str(len(each.processes)),
    )


def _remarks(found: Profile) -> list[str]:
    """What the sums do not have."""
    remarks = []
    if found.passed_through:
        what = counted(found.passed_through, "open")
        remarks.append(f"{what} of files that the kernel reads itself: their reads are not counted")
    if found.left_out:
        remarks.append(f"{counted(found.left_out, 'operation')} came too fast and are left out")
    if found.workers:
        remarks.append("the worker was replaced; what was answered meanwhile is left out")
    return remarks
