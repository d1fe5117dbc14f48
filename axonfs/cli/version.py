"""`axonfs version`."""

from __future__ import annotations

import click

from axonfs._version import __version__


@click.command
def version() -> None:
    """Show the version of this program."""
    click.echo(f"axonfs {__version__}")
