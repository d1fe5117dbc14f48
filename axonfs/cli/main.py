"""The `axonfs` program: the table of commands.

Commands are imported when they run, so that `axonfs version` does not import an HTTP client.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence

import click

from axonfs._version import __version__
from axonfs.cli.running import run
from axonfs.cli.suggestions import Group

# Command → module in axonfs.cli and function in it, in the order of `axonfs --help`.
COMMANDS: Mapping[str, str] = {
    "mount": "mount:mount",
    "umount": "mount:umount",
    "restart": "mount:restart",
    "status": "status:status",
    "top": "top.command:top",
    "explain": "explain:explain",
    "logs": "log_reader:logs",
    "trace": "trace:trace",
    "profile": "profile:profile",
    "search": "models:search",
    "info": "models:info",
    "path": "path:path",
    "export": "export:export",
    "env": "env:env",
    "versions": "models:versions",
    "list": "models:list_command",
    "pin": "pins:pin",
    "unpin": "pins:unpin",
    "install": "pins:install",
    "uninstall": "pins:uninstall",
    "update": "pins:update",
    "verify": "pins:verify",
    "warm": "warm:warm",
    "lock": "lockfiles:lock",
    "register": "register:register",
    "cache": "cache:cache",
    "publish": "publish:publish",
    "manifest": "manifest:manifest",
    "registry": "registry:registry",
    "csi": "csi:csi",
    "config": "config:config",
    "completion": "completion:completion",
    "doctor": "doctor:doctor",
    "debug": "bundle.command:debug",
    "version": "version:version",
}
# Commands that only the program itself runs.
INTERNAL: Mapping[str, str] = {"worker": "mount:worker"}


class Commands(Group):
    """The group of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name) or INTERNAL.get(cmd_name)
        if place is None:
            return None
        module, _, function = place.partition(":")
        command = getattr(importlib.import_module(f"axonfs.cli.{module}"), function)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=Commands,
    name="axonfs",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="axonfs %(version)s", help="Show the version.")
def cli() -> None:
    """Mount the models of your registries as ordinary directories.

    SPEC is namespace/name@version. Without @version it means the latest version, and with a
    constraint such as @^1.2 the highest version that it allows.
    """


def leaves(
    command: click.Command, context: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    """The commands of a group at any depth, without the groups, in the order of the help; of a
    command itself, that one."""
    if not isinstance(command, click.Group):
        yield command, context
        return
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        yield from leaves(inner, click.Context(inner, info_name=name, parent=context))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) > 1 and is_mount_source(words[0]) and words[1].startswith("/"):
        # mount.fuse3 runs `axonfs SOURCE MOUNTPOINT -o OPTIONS`.
        from axonfs.cli.mount_helper import main as mount

        return mount(words)
    return run(cli, argv, "axonfs")


def is_mount_source(word: str) -> bool:
    """Whether a word is what stands first in a line of /etc/fstab; no command is such a word."""
    return "/" in word.lstrip("-") or word in ("none", "axonfs")
