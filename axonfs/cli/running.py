"""Runs a command line: the one place where errors become text and exit codes.

An AxonError becomes one line on stderr and its exit code; only AXONFS_DEBUG=1 shows tracebacks.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress

import click

from axonfs import descriptors
from axonfs.cli import streams
from axonfs.cli.output import deferred, documents, echo_err, echo_json, report, shown, warn_deferred
from axonfs.errors import AxonError, StoppedError, find

LEAVE_SECONDS = 2.0  # for threads to remove temporary files after Ctrl-C


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
