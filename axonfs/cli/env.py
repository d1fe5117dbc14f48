"""`axonfs env`: prints what has the Hub's clients read their models from the mount."""

from __future__ import annotations

import os
from pathlib import Path

import click

from axonfs.cli.default_mount import mount_to_look_at
from axonfs.cli.options import LocalPath, json_option, make_target
from axonfs.cli.output import echo_json, echo_path
from axonfs.client.health import real_path
from axonfs.connection.mountinfo import axonfs_at
from axonfs.errors import NotFoundError
from axonfs.names import HUB_VIEW, word

SHELLS = ("sh", "fish")


@click.command
@click.argument("mountpoint", required=False, type=LocalPath("the mountpoint"))
@click.option(
    "--shell",
    type=click.Choice(SHELLS),
    default="sh",
    show_default=True,
    help="The shell that reads the lines; sh stands for bash, zsh and others like them.",
)
@json_option
def env(mountpoint: Path | None, shell: str, as_json: bool) -> None:
    """Print shell lines for reading models by their id.

    After `eval "$(axonfs env)"`, `vllm serve Qwen/Qwen3-0.6B`, from_pretrained and `hf` read from
    the mount as from a cache of the Hugging Face Hub, and send no requests. In fish it is
    `axonfs env --shell fish | source`.
    """
    variables = {"HF_HUB_CACHE": os.path.join(_chosen(mountpoint), HUB_VIEW), "HF_HUB_OFFLINE": "1"}
    if as_json:
        echo_json(variables)
        return
    for name, value in variables.items():
        echo_path(_line(shell, name, value))


def _chosen(mountpoint: Path | None) -> Path:
    if mountpoint is None:
        return mount_to_look_at(make_target((), None)).mountpoint
    place = real_path(mountpoint)
    if axonfs_at(place) is None:
        raise NotFoundError("no AxonFS is mounted there", path=str(place), hint="see axonfs status")
    return place


def _line(shell: str, name: str, value: str) -> str:
    if shell == "fish":
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"set -gx {name} '{quoted}'"
    return f"export {name}={word(value)}"
