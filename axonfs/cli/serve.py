"""`axonfs registry serve`: the built-in server of a registry directory."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from axonfs.cli.options import LocalPath
from axonfs.cli.output import note
from axonfs.errors import UsageError

if TYPE_CHECKING:
    from axonfs.serve import Certificate

_directory = LocalPath("the registry's directory", exists=True, file_okay=False)
_pem = LocalPath("the PEM file", dir_okay=False)


@click.command
@click.argument("directory", metavar="DIR", type=_directory)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on.",
)
@click.option(
    "--port",
    metavar="PORT",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--cert",
    metavar="FILE",
    type=_pem,
    help="PEM file of the certificate and its chain, for https; loaded again when it changes.",
)
@click.option("--key", metavar="FILE", type=_pem, help="PEM file of the certificate's key.")
@click.option(
    "--max-connections",
    metavar="NUMBER",
    default=256,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Most connections at a time; over it idle ones are closed, then new clients get a 503.",
)
def serve(
    directory: Path,
    host: str,
    port: int,
    cert: Path | None,
    key: Path | None,
    max_connections: int,
) -> None:
    """Serve a registry directory over HTTP until interrupted.

    Prints the URL once the server answers, and a line for each request on standard error. A browser
    shows the models at this URL, and /healthz answers whether the directory can be read. SIGHUP
    loads the certificate again. SIGTERM lets answers end for ten seconds.
    """
    from axonfs.cli.logs import show_lines
    from axonfs.daemon.systemd import notify
    from axonfs.serve import access_log, serving

    if not (directory / "api/v1").is_dir():
        note(f"{directory} has no models yet; axonfs publish DIR SPEC --to {directory} adds one")
    certificate = _certificate(cert, key)
    stop, interrupted = threading.Event(), threading.Event()

    def leave(number: int, frame: object) -> None:
        if number == signal.SIGINT:
            interrupted.set()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    logging.getLogger("axonfs.serve").setLevel(logging.INFO)
    show_lines(access_log)
    limits = {"max_connections": max_connections}
    with serving(directory, host, port, certificate=certificate, **limits) as server:
        signal.signal(signal.SIGHUP, lambda number, frame: server.reload())
        click.echo(f"serving {server.url}")
        sys.stdout.flush()
        notify("READY=1")
        stop.wait()
        notify("STOPPING=1")
    if interrupted.is_set():
        raise KeyboardInterrupt


def _certificate(cert: Path | None, key: Path | None) -> Certificate | None:
    from axonfs.serve import Certificate

    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise UsageError("--cert and --key belong together", hint="give both, or neither")
    return Certificate(cert, key)
