"""`axonfs trace`: records what a mount does, and shows it as a picture.

The mount writes the file, so that it is its owner's, wherever the command runs. `show` needs no
mount.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from axonfs.call import Event
from axonfs.cli.mount_state import LiveState
from axonfs.cli.options import LocalPath, cache_option, json_option, make_target
from axonfs.cli.output import echo, echo_json, facts, note, table
from axonfs.cli.suggestions import Group
from axonfs.errors import AxonError, UnavailableError, UsageError
from axonfs.names import word
from axonfs.settings.parsers import parse_path
from axonfs.units import counted, size

if TYPE_CHECKING:
    from axonfs.trace.picture import Picture

_MOUNT = LocalPath("the mountpoint")
_SHOWN_FILES = 20
# Seconds for which a mount whose worker is being replaced is asked again.
PATIENCE = 5.0


@click.group(cls=Group)
def trace() -> None:
    """Record what a mount does, and show it as a picture.

    A trace has the opens, the reads of each program, the requests, what arrived, and what readers
    waited for. Recording costs less than 2 % of a load.
    """


@trace.command
@click.argument("mountpoint", required=False, type=_MOUNT)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Where the mount writes the trace; by default a new file in its cache, which keeps 16.",
)
@cache_option
def start(mountpoint: Path | None, output: str | None, cache: str | None) -> None:
    """Begin to record.

    MOUNTPOINT defaults as for `axonfs status`. The recording goes on, also over a restart of the
    mount, until `axonfs trace stop`, until the mount ends, or until the file has 64 MiB. A FILE
    that is a trace is gone on with; one that is something else is refused.
    """
    request: Event = {"op": "trace_start"}
    if output is not None:
        request["file"] = str(parse_path(output))
    state = _ask(mountpoint, cache, request)
    echo(f"recording into {state['file']}")
    note("to end it: axonfs trace stop")


@trace.command
@click.argument("mountpoint", required=False, type=_MOUNT)
@cache_option
def stop(mountpoint: Path | None, cache: str | None) -> None:
    """End the recording.

    MOUNTPOINT defaults as for `axonfs status`.
    """
    state = _ask(mountpoint, cache, {"op": "trace_stop"})
    echo(f"recorded {state['file']} ({size(state['bytes'])})")
    note(f"to see it: axonfs trace show {word(state['file'])} -o load.html")


def _ask(mountpoint: Path | None, cache: str | None, request: Event) -> Event:
    """The mount's answer.

    Raises:
        AxonError: there is no such mount, or it cannot do it.
    """
    live = LiveState(mountpoint, make_target((), cache))
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return live.ask(request)
        except UnavailableError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


@trace.command
@click.argument("file", type=LocalPath("the trace"))
@click.option(
    "-o",
    "--output",
    metavar="PICTURE",
    type=LocalPath("the picture"),
    help="Write a picture: .html for a page that needs nothing else, .png for an image.",
)
@json_option
def show(file: Path, output: Path | None, as_json: bool) -> None:
    """Show a trace: in short, or as a picture with -o.

    The picture has a row for each file with when its bytes were asked for, arrived and were read,
    the use of the line, what readers waited for, and a sentence for what would have made it sooner.
    A recording that is still under way can be shown, too. FILE may come from anybody.
    """
    from axonfs.trace.figures import figures, plain
    from axonfs.trace.picture import picture
    from axonfs.trace.reading import read

    trace = read(file)
    if output is not None:
        _draw(picture(trace, file.name), output)
    if as_json:
        echo_json(plain(trace, figures(trace)))
    elif output is not None:
        echo(f"wrote {output}")
    else:
        _tell(picture(trace, file.name))


def _draw(found: Picture, output: Path) -> None:
    """Write the picture as the kind of file that the name of `output` asks for."""
    if output.suffix == ".html":
        from axonfs.trace.page import page

        data = page(found).encode()
    elif output.suffix == ".png":
        from axonfs.trace.png import png

        data = png(found)
    else:
        what = "is neither a .html nor a .png file"
        raise UsageError(what, path=str(output), hint="name it load.html or load.png")
    try:
        output.write_bytes(data)
    except OSError as exc:
        with suppress(OSError):  # a part of a picture is of no use
            if output.is_file():
                output.unlink()
        what = f"the picture cannot be written: {exc.strerror}"
        raise AxonError(what, path=str(output)) from exc


def _tell(found: Picture) -> None:
    echo(found.title)
    facts(found.facts)
    for sentence in (*found.sentences, *found.remarks):
        click.echo("")
        echo(sentence)
    for title, bars in found.tables:
        if bars:
            click.echo("")
            table((title.upper(), ""), ((bar.name, bar.value) for bar in bars), widest=100)
    if found.files:
        click.echo("")
        rows = [(panel.title, panel.note) for panel in found.files[:_SHOWN_FILES]]
        table(("FILE", ""), rows, widest=100)
    if (left := len(found.files) - _SHOWN_FILES) > 0:
        echo(f"and {counted(left, 'file')} more, which -o load.html shows")
