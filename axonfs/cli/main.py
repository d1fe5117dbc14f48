"""The `axonfs` program: the table of commands, and the one place where errors become text.

Commands are imported when they run: `axonfs version` must not pay for an HTTP client.
An AxonError ends as one line on stderr and its own exit code; a traceback is shown only where
AXONFS_DEBUG=1 asks for it.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress

import click

from axonfs import descriptors
from axonfs._version import __version__
from axonfs.cli import streams
from axonfs.cli.output import complain, echo_json, held, said, tell, tell_held
from axonfs.cli.suggestions import Group
from axonfs.errors import AxonError, StoppedError, find

# Command → module below axonfs.cli, in the order that `axonfs --help` shows them. The function
# has the command's name, with `_command` where the plain name would shadow something.
COMMANDS: Mapping[str, str] = {
    "mount": "mount:mount",
    "umount": "mount:umount",
    "restart": "mount:restart",
    "status": "status:status",
    "search": "models:search",
    "info": "models:info",
    "path": "models:path",
    "versions": "models:versions",
    "list": "models:list_command",
    "pin": "pins:pin",
    "unpin": "pins:unpin",
    "install": "pins:install",
    "uninstall": "pins:uninstall",
    "update": "pins:update",
    "verify": "pins:verify",
    "lock": "lockfiles:lock",
    "register": "register:register",
    "cache": "cache:cache",
    "publish": "publish:publish",
    "manifest": "manifest:manifest",
    "registry": "registry:registry",
    "config": "config:config",
    "doctor": "doctor:doctor",
    "version": "version:version",
}
# What the program starts itself.
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
    """Every version of every model of your registries, as plain files.

    SPEC is namespace/name@version; without @version it is the latest one, and a constraint such
    as @^1.2 means the highest version that it allows.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code. Nothing but a bug under AXONFS_DEBUG=1 shows a trace."""
    streams.prepare()
    said.clear()
    held.clear()
    descriptors.raise_limit()
    try:
        result = cli.main(argv, prog_name="axonfs", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except BaseException as exc:
        cause = _cause(exc)
        code = _report(cause)
        if _wants_json(sys.argv[1:] if argv is None else argv):
            _report_json(cause, code)
    finally:
        tell_held()
    fault = streams.finish()
    return _unwritten(fault) or code if fault else code


def _cause(exc: BaseException) -> BaseException:
    """What happened: Ctrl-C before the faults that it caused, and these before any other."""
    known = find(exc, KeyboardInterrupt) or find(exc, AxonError)
    return known or find(exc, BaseException) or exc


def _report(exc: BaseException) -> int:
    if os.environ.get("AXONFS_DEBUG") and not isinstance(exc, click.exceptions.Exit | SystemExit):
        from axonfs.cli.logs import safe_traceback

        complain(safe_traceback("".join(traceback.format_exception(exc))))
    if isinstance(exc, click.exceptions.Exit):
        return exc.exit_code
    if isinstance(exc, KeyboardInterrupt | click.Abort):
        return StoppedError.exit_code
    if isinstance(exc, OSError) and (fault := streams.stdout_fault(exc)):
        return _unwritten(fault)
    if isinstance(exc, AxonError):
        tell_held(str(exc))
        return _say(str(exc), exc.exit_code)
    if isinstance(exc, click.exceptions.NoArgsIsHelpError):
        complain(exc.format_message())
        return exc.exit_code
    if isinstance(exc, click.ClickException):
        return _say(_usage_text(exc), exc.exit_code)
    if isinstance(exc, Exception):
        return _say(_unexpected(exc), 1)
    raise exc


def _wants_json(argv: Sequence[str]) -> bool:
    options = argv[: argv.index("--")] if "--" in argv else argv
    return "--json" in options


def _report_json(exc: BaseException, code: int) -> None:
    """The error as the one JSON object on stdout, where the result would have been."""
    if isinstance(exc, click.exceptions.Exit) or sys.stdout.closed:
        return
    with suppress(OSError):  # nobody reads it
        echo_json({"error": {**_facts(exc), "exit_code": code}})


def _facts(exc: BaseException) -> dict[str, str | None]:
    if isinstance(exc, AxonError):
        return exc.facts()
    if isinstance(exc, KeyboardInterrupt | click.Abort):
        text = "interrupted"
    elif isinstance(exc, click.ClickException):
        text = _usage_text(exc)
    else:
        text = _unexpected(exc)
    return AxonError(text).facts()


def _say(message: str, code: int) -> int:
    tell(message)
    return code


def _unwritten(fault: OSError) -> int:
    """Standard output took not all: not worth a word where its reader has left."""
    streams.silence(sys.stdout)
    if fault.errno != errno.EPIPE:
        _say(f"standard output cannot be written: {fault.strerror}", 1)
    return 1


def _usage_text(exc: click.ClickException) -> str:
    text = exc.format_message().rstrip(".")
    text = text[:1].lower() + text[1:]
    if isinstance(exc, click.UsageError) and exc.ctx is not None:
        return f"{text}{'' if text.endswith('?') else ';'} try {exc.ctx.command_path} --help"
    return text


def _unexpected(exc: BaseException) -> str:
    if isinstance(exc, OSError):
        named = f"{exc.filename}: " if exc.filename else ""
        return f"{named}{exc.strerror or exc}"
    return f"this is a bug: {type(exc).__name__}: {exc}; AXONFS_DEBUG=1 shows where"
