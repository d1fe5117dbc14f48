"""`axonfs top`: shows what a mount does, in a terminal or as plain text."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from axonfs.cli.mount_state import LiveState
from axonfs.cli.options import LocalPath, cache_option, make_target
from axonfs.cli.output import note
from axonfs.cli.top import plain
from axonfs.distro import install_extra
from axonfs.errors import UnsupportedError


@click.command
@click.argument("mountpoint", required=False, type=LocalPath("the mountpoint"))
@click.option(
    "--plain", "as_text", is_flag=True, help="Print text, as into a pipe; needs no extra."
)
@click.option(
    "-n",
    "--count",
    metavar="COUNT",
    type=click.IntRange(1),
    help="Print this many blocks of text and end.",
)
@click.option(
    "--interval",
    metavar="SECONDS",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.2, 3600),
    help="Seconds from one moment to the next.",
)
@cache_option
def top(
    mountpoint: Path | None,
    as_text: bool,
    count: int | None,
    interval: float,
    cache: str | None,
) -> None:
    """Show who waits for what, loads, sources and open files, live.

    In a terminal this is a live view; `?` shows its keys. It needs the extra `top`. With --plain,
    with --count, in a pipe, or with TERM=dumb it prints blocks of text instead. MOUNTPOINT defaults
    to the mount with the configured cache, or the only mount. For programs there is `axonfs status
    --json --watch`.
    """
    source = LiveState(mountpoint, make_target((), cache))
    if as_text or count is not None or not _is_screen():
        plain.show(source, interval, count)
        return
    if find_spec("textual") is None:
        what = "the live view needs textual, which is not installed"
        hint = f"{install_extra('top')}; axonfs top --plain works without it"
        raise UnsupportedError(what, hint=hint)
    from axonfs.cli.top.app import run

    if source.owner:
        note(f"this is {source.owner}'s mount")
    run(source, interval)


def _is_screen() -> bool:
    """Whether standard input and output are a terminal that can be drawn on."""
    capable = os.environ.get("TERM", "dumb") not in ("dumb", "")
    return capable and sys.stdin.isatty() and sys.stdout.isatty()
