"""`axonfs version`."""

from __future__ import annotations

import click

from axonfs._version import __version__


@click.command
def version() -> None:
    """Show the version of AxonFS."""
    click.echo(f"axonfs {__version__}")
