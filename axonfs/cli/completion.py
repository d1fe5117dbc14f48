"""`axonfs completion`: prints the script that completes command lines in a shell."""

from __future__ import annotations

from importlib.resources import files

import click

SHELLS = ("bash", "zsh", "fish")


@click.command
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that completes command lines in a shell.

    For bash: `source <(axonfs completion bash)` in ~/.bashrc. For zsh: the same, with zsh, in
    ~/.zshrc below compinit. For fish: `axonfs completion fish | source` in config.fish.
    It completes commands, options, settings, mountpoints, and the models, versions and files that
    the cache knows. It asks no mount and no server.
    """
    click.echo(script(shell), nl=False)


def script(shell: str) -> str:
    """The script for a shell."""
    return files("axonfs.cli.completing").joinpath(f"axonfs.{shell}").read_text(encoding="utf-8")
