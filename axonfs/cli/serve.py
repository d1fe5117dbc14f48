"""`axonfs registry serve`: the built-in server of a registry directory."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from axonfs.cli.options import LOCAL_HOSTS, LocalPath
from axonfs.cli.output import note
from axonfs.errors import UsageError
from axonfs.names import word

if TYPE_CHECKING:
    from axonfs.serve import Access, Certificate

_directory = LocalPath("the registry's directory", exists=True, file_okay=False)
_pem = LocalPath("the PEM file", dir_okay=False)
_tokens = LocalPath("the tokens file", dir_okay=False)


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
    "--tokens",
    "tokens_file",
    metavar="FILE",
    type=_tokens,
    help="Tokens of axonfs registry token create; those that may publish can upload here.",
)
@click.option("--private", is_flag=True, help="Only tokens may read.")
@click.option(
    "--max-connections",
    metavar="NUMBER",
    default=256,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Most connections at a time; over it idle ones are closed, then new clients get a 503.",
)
@click.option(
    "--metrics",
    metavar="[ADDRESS:]PORT",
    help="Serve metrics for Prometheus there; ADDRESS is 127.0.0.1 by default; unix:PATH is a Unix"
    " socket. No token is asked for.",
)
def serve(
    directory: Path,
    host: str,
    port: int,
    cert: Path | None,
    key: Path | None,
    tokens_file: Path | None,
    private: bool,
    max_connections: int,
    metrics: str | None,
) -> None:
    """Serve a registry directory over HTTP until interrupted.

    Prints the URL once the server answers, and a line for each request on standard error. A browser
    shows the models at this URL, and /healthz answers whether the directory can be read. SIGHUP
    loads the certificate again. SIGTERM lets answers end for ten seconds.
    """
    from axonfs.cli.logs import show_lines
    from axonfs.daemon.systemd import notify
    from axonfs.serve import access_log, serving
    from axonfs.settings.settings import convert

    if not (directory / "api/v1").is_dir():
        how = f"axonfs publish DIR SPEC --to {word(directory)} adds one"
        note(f"{directory} has no models yet; {how}")
    certificate, access = _certificate(cert, key), _access(directory, tokens_file, private)
    if tokens_file and certificate is None and host not in LOCAL_HOSTS:
        note("tokens come over plain HTTP, where others can read them; give --cert and --key")
    stop, interrupted = threading.Event(), threading.Event()

    def leave(number: int, frame: object) -> None:
        if number == signal.SIGINT:
            interrupted.set()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    logging.getLogger("axonfs.serve").setLevel(logging.INFO)
    show_lines(access_log)
    with serving(
        directory,
        host,
        port,
        access=access,
        certificate=certificate,
        max_connections=max_connections,
        metrics=convert("metrics", metrics, "--metrics") if metrics else None,
    ) as server:
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


def _access(directory: Path, tokens: Path | None, private: bool) -> Access:
    from axonfs.serve import Access, Tokens

    if tokens is None:
        if private:
            raise UsageError("--private needs tokens", hint="add --tokens FILE")
        return Access()
    if tokens.resolve().is_relative_to(directory.resolve()):
        what = "the tokens file is in the directory that is served"
        raise UsageError(what, source=str(tokens), hint="keep it elsewhere")
    return Access(Tokens(tokens), private=private)
