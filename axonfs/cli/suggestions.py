"""Groups of commands that suggest the right command for a misspelt one or another tool's word."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import click

from axonfs.names import printable

# The words of Axon, git, docker, ollama and file tools → the command here.
ELSEWHERE: Mapping[str, str] = {
    "add": "pin, or registry add",
    "check": "verify, or doctor",
    "clean": "cache clean",
    "delete": "uninstall",
    "download": "pin",
    "fetch": "pin",
    "find": "search",
    "gc": "cache clean",
    "get": "pin",
    "help": "--help",
    "init": "registry add (mount needs nothing else)",
    "lint": "manifest lint",
    "load": "mount",
    "login": "registry add URL --with-token",
    "logs": "status (it shows where the log is)",
    "ls": "list",
    "prune": "cache prune",
    "ps": "status",
    "pull": "pin",
    "push": "publish",
    "remove": "uninstall",
    "rm": "uninstall",
    "run": "mount (then any program can read the models)",
    "serve": "registry serve",
    "show": "info",
    "start": "mount",
    "stop": "umount",
    "unmount": "umount",
    "upgrade": "update",
    "where": "path",
}
# The same for the commands of `cache`, `registry` and `config`.
ELSEWHERE_BELOW: Mapping[str, str] = {
    "clear": "clean",
    "default": "set default",
    "delete": "remove",
    "info": "stats",
    "ls": "list",
    "rm": "remove",
    "show": "list",
    "unset": "set KEY default",
}


class Group(click.Group):
    """A group that suggests a command if it does not have the one that was typed."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            suggestion = _suggestion(name, self.list_commands(ctx))
            hint = f"; did you mean {suggestion}?" if suggestion else ""
            ctx.fail(f"there is no command '{printable(name)}'{hint}")
        return super().resolve_command(ctx, args)


def _suggestion(name: str, commands: list[str]) -> str | None:
    """The command for another tool's word, else the one that is spelt most like `name`."""
    table = ELSEWHERE if "mount" in commands else ELSEWHERE_BELOW
    same = table.get(name.lower(), "")
    if same and (table is ELSEWHERE or same.split()[0] in commands):
        return same
    near = difflib.get_close_matches(name, commands, 1)
    return near[0] if near else None
