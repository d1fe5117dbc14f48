"""The `axonfs` program: the table of commands, and the one place where errors become text.

Commands are imported when they run, so that `axonfs version` does not import an HTTP client. An
AxonError becomes one line on stderr and its exit code; only AXONFS_DEBUG=1 shows tracebacks.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress

import click

from axonfs import descriptors
from axonfs._version import __version__
from axonfs.cli import streams
from axonfs.cli.output import deferred, documents, echo_err, echo_json, report, shown, warn_deferred
from axonfs.cli.suggestions import Group
from axonfs.errors import AxonError, StoppedError, find

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
LEAVE_SECONDS = 2.0  # for threads to remove temporary files after Ctrl-C
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) > 1 and is_mount_source(words[0]) and words[1].startswith("/"):
        # mount.fuse3 runs `axonfs SOURCE MOUNTPOINT -o OPTIONS`.
        code: int = importlib.import_module("axonfs.cli.mount_helper").main(words)
        return code
    return run(cli, argv, "axonfs")


def is_mount_source(word: str) -> bool:
    """Whether a word is what stands first in a line of /etc/fstab; no command is such a word."""
    return "/" in word.lstrip("-") or word in ("none", "axonfs")


def run(command: click.Command, argv: Sequence[str] | None, name: str) -> int:
    """Run one command line of a program and return its exit code."""
    streams.prepare()
    shown.clear()
    deferred.clear()
    documents.clear()
    descriptors.raise_limit()
    try:
        result = command.main(argv, prog_name=name, standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except BaseException as exc:
        cause = _cause(exc)
        code = _report(cause)
        if _wants_json(sys.argv[1:] if argv is None else argv):
            _report_json(cause, code)
    finally:
        warn_deferred()
    fault = streams.finish()
    code = _unwritten(fault) or code if fault else code
    if argv is None and code == StoppedError.exit_code:
        _leave(code)
    return code


def _leave(code: int) -> None:
    """End the process without threads that wait for a server; give the others a moment."""
    deadline = time.monotonic() + LEAVE_SECONDS
    others = [one for one in threading.enumerate() if one is not threading.main_thread()]
    for thread in (one for one in others if not one.daemon):
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            with suppress(OSError, ValueError):
                sys.stderr.flush()
            os._exit(code)


def _cause(exc: BaseException) -> BaseException:
    """The exception behind `exc`: Ctrl-C before the faults that it caused, these before others."""
    known = find(exc, KeyboardInterrupt) or find(exc, AxonError)
    return known or find(exc, BaseException) or exc


def _report(exc: BaseException) -> int:
    if os.environ.get("AXONFS_DEBUG") and not isinstance(exc, click.exceptions.Exit | SystemExit):
        from axonfs.cli.logs import safe_traceback

        echo_err(safe_traceback("".join(traceback.format_exception(exc))))
    if isinstance(exc, click.exceptions.Exit):
        return exc.exit_code
    if isinstance(exc, KeyboardInterrupt | click.Abort):
        return StoppedError.exit_code
    if isinstance(exc, OSError) and (fault := streams.stdout_fault(exc)):
        return _unwritten(fault)
    if isinstance(exc, AxonError):
        warn_deferred(str(exc))
        return _say(str(exc), exc.exit_code)
    if isinstance(exc, click.exceptions.NoArgsIsHelpError):
        echo_err(exc.format_message())
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
    """Print the error as JSON on stdout, unless the command has printed a result."""
    if isinstance(exc, click.exceptions.Exit) or documents or sys.stdout.closed:
        return
    with suppress(OSError):  # the reader of stdout has gone
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
    report(message)
    return code


def _unwritten(fault: OSError) -> int:
    """Report that standard output could not be written; silently if its reader has gone."""
    streams.silence(sys.stdout)
    if fault.errno != errno.EPIPE:
        _say(f"cannot write standard output: {fault.strerror}", 1)
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
