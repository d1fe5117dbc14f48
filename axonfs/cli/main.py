"""The `axonfs` program: the table of commands, and the one place where errors become text.

Commands are imported when they run: `axonfs version` must not pay for an HTTP client.
An AxonError ends as one line on stderr and its own exit code; a traceback is shown only where
AXONFS_DEBUG=1 asks for it.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence

import click

from axonfs.cli.output import said
from axonfs.errors import AxonError
from axonfs.names import printable

INTERRUPTED = 130  # 128 + SIGINT, as shells expect it

# Command → module below axonfs.cli, in the order that `axonfs --help` shows them. The function
# has the command's name, with `_command` where the plain name would shadow something.
COMMANDS: Mapping[str, str] = {
    "mount": "mounting:mount",
    "umount": "mounting:umount",
    "restart": "mounting:restart",
    "status": "status:status",
    "search": "models:search",
    "info": "models:info",
    "versions": "models:versions",
    "list": "models:list_command",
    "pin": "pins:pin",
    "unpin": "pins:unpin",
    "install": "pins:install",
    "uninstall": "pins:uninstall",
    "update": "pins:update",
    "verify": "pins:verify",
    "lock": "locks:lock",
    "register": "register:register",
    "cache": "cache:cache",
    "publish": "registries:publish",
    "manifest": "manifests:manifest",
    "registry": "registries:registry",
    "config": "configure:config",
    "doctor": "doctor:doctor",
    "version": "about:version",
}
# What the program starts itself.
INTERNAL: Mapping[str, str] = {"worker": "mounting:worker"}


class Commands(click.Group):
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        import difflib

        if args[0] not in {*COMMANDS, *INTERNAL} and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            ctx.fail(f"there is no command {printable(args[0])!r}{hint}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=Commands,
    name="axonfs",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def cli() -> None:
    """Every version of every model of your registries, as plain files.

    SPEC is namespace/name@version; without @version it is the latest one, and a constraint such
    as @^1.2 means the highest version that it allows.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code. Nothing but a bug under AXONFS_DEBUG=1 shows a trace."""
    _open_standard_descriptors()
    said.clear()
    try:
        result = cli.main(argv, prog_name="axonfs", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except BaseException as exc:
        return _report(_cause(exc))


def _open_standard_descriptors() -> None:
    """Have 0, 1 and 2 be something: cron and supervisors may close them, and what is opened next
    would take their numbers, a connection or an index, and be written to as standard error."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _cause(exc: BaseException) -> BaseException:
    """What happened, out of the groups that trio's nurseries wrap it in."""
    leaves = list(_leaves(exc))
    for kind in (KeyboardInterrupt, AxonError):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]


def _leaves(exc: BaseException) -> list[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for inner in exc.exceptions for leaf in _leaves(inner)]
    return [exc]


def _report(exc: BaseException) -> int:
    if os.environ.get("AXONFS_DEBUG") and not isinstance(exc, click.exceptions.Exit | SystemExit):
        from axonfs.cli.logs import safe_traceback

        click.echo(safe_traceback("".join(traceback.format_exception(exc))), err=True)
    if isinstance(exc, click.exceptions.Exit):
        return exc.exit_code
    if isinstance(exc, KeyboardInterrupt | click.Abort):
        return INTERRUPTED
    if isinstance(exc, BrokenPipeError):
        _silence_stdout()
        return 1
    if isinstance(exc, AxonError):
        return exc.exit_code if str(exc) in said else _say(str(exc), exc.exit_code)
    if isinstance(exc, click.exceptions.NoArgsIsHelpError):
        click.echo(exc.format_message(), err=True)
        return exc.exit_code
    if isinstance(exc, click.ClickException):
        return _say(_usage_text(exc), exc.exit_code)
    if isinstance(exc, Exception):
        return _say(_unexpected(exc), 1)
    raise exc


def _say(message: str, code: int) -> int:
    click.echo(f"axonfs: {printable(message, 2000)}", err=True)
    return code


def _usage_text(exc: click.ClickException) -> str:
    text = exc.format_message().rstrip(".")
    text = text[:1].lower() + text[1:]
    if isinstance(exc, click.UsageError) and exc.ctx is not None:
        return f"{text}; try {exc.ctx.command_path} --help"
    return text


def _unexpected(exc: Exception) -> str:
    if isinstance(exc, OSError):
        named = f"{exc.filename}: " if exc.filename else ""
        return f"{named}{exc.strerror or exc}"
    return f"this is a bug: {type(exc).__name__}: {exc}; AXONFS_DEBUG=1 shows where"


def _silence_stdout() -> None:
    # The interpreter flushes stdout at its end and would complain about the closed pipe again.
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - stays open to the end of the process
