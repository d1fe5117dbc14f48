"""The plain form of `axonfs top`: one block of text for each moment. Blocking."""

from __future__ import annotations

import time

import click

from axonfs.cli.mount_state import LiveState
from axonfs.cli.top.figures import Figures
from axonfs.cli.top.layout import Line
from axonfs.cli.top.views import Frame, View, header, overview
from axonfs.errors import AxonError


def show(source: LiveState, interval: float, count: int | None) -> None:
    """Print a block every `interval` seconds: `count` of them, or until interrupted.

    The first one comes after a second look, since a rate needs two.

    Raises:
        AxonError: the mount did not answer for the last block.
    """
    figures, fault = Figures(), None
    figures.moment(source.read(), time.time())
    shown = 0
    while count is None or shown < count:
        time.sleep(interval)
        fault = _block(source, figures)
        shown += 1
    if fault is not None:
        raise fault


def _block(source: LiveState, figures: Figures) -> AxonError | None:
    frame, view, fault = Frame(str(source.mountpoint), source.owner), View(), None
    try:
        moment = figures.moment(source.read(), time.time())
    except AxonError as exc:
        fault = exc
        now = time.strftime("%H:%M:%S")
        lines = header(None, Frame(frame.mountpoint, frame.owner, f"{now}: {exc}"), None)
    else:
        lines = [*header(moment, frame, None), Line(""), *overview(moment, view, None, None)]
    click.echo("\n".join(line.text for line in lines) + "\n")
    return fault
