"""Where the package's log goes: a mount's log has times, a command's warnings are messages.

AXONFS_DEBUG=1 shows everything. No text in a line, from any source, can control a terminal or
begin another line.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from axonfs.cli.logfile import LOG, LogFile, is_stderr
from axonfs.cli.output import complain, held, tell
from axonfs.errors import AxonError
from axonfs.names import printable

_TIME = "%Y-%m-%dT%H:%M:%SZ"


def log_to_stderr(form: str = "text", level: str = "info", cache: Path | None = None) -> None:
    """For a mount: lines with time (UTC), level and module, or one JSON object a line.

    Args:
        form: `text` or `json`.
        level: the least severe level that is written: debug, info, warning or error.
        cache: the cache whose log file is rotated, if standard error is that file.
    """
    formatter: logging.Formatter = _Json() if form == "json" else _Text()
    owned = cache is not None and is_stderr(cache / LOG)
    handler = LogFile(cache / LOG) if cache and owned else logging.StreamHandler()
    _install(handler, formatter, logging.getLevelNamesMapping()[level.upper()])


def log_like_messages() -> None:
    """For a command: warnings read like its other messages, and a bug shows no traceback."""
    _install(_Messages(), _Safe(), logging.WARNING)


class _Safe(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record), 4000)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return safe_traceback(super().formatException(ei))


class _Text(_Safe):
    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", _TIME)


class _Json(_Safe):
    """One object a line; an error that a reader saw has its model, file and source apart."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime(_TIME, time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_subject(record),
        }
        if record.exc_info:
            line["traceback"] = logging.Formatter.formatException(self, record.exc_info)
        return json.dumps(line)  # ASCII: no character in it can control a terminal


def _subject(record: logging.LogRecord) -> dict[str, Any]:
    arguments = record.args if isinstance(record.args, tuple) else ()
    for error in (one for one in arguments if isinstance(one, AxonError)):
        name = errno.errorcode.get(error.errno, str(error.errno))
        found = {key: getattr(error, key) for key in ("spec", "path", "source", "hint")}
        return {key: value for key, value in found.items() if value} | {"errno": name}
    return {}


class _Messages(logging.Handler):
    """Tells each record once. The fault of a source waits until the command has progress to show or
    ends: the error that ends it may say the same, and name the model."""

    def emit(self, record: logging.LogRecord) -> None:
        if os.environ.get("AXONFS_DEBUG"):
            complain(self.format(record))
        elif record.msg == "%s" and _subject(record):
            held.append(record.getMessage())
        else:
            tell(record.getMessage())


def safe_traceback(text: str) -> str:
    """A traceback whose every line is safe, and told by its indent from a line of the log."""
    return "\n".join(f"  {printable(line, 1000)}" for line in text.splitlines())


def _install(handler: logging.Handler, form: logging.Formatter, level: int) -> None:
    handler.setFormatter(form)
    logger = logging.getLogger("axonfs")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if os.environ.get("AXONFS_DEBUG") else level)
