"""Configures logging: a mount's log lines have times, a command's warnings look like its messages.

AXONFS_DEBUG=1 shows everything. Texts from sources are made printable, so that they cannot control
a terminal or forge a line.
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
from axonfs.cli.output import deferred, echo_err, report
from axonfs.errors import AxonError
from axonfs.names import printable

_TIME = "%Y-%m-%dT%H:%M:%SZ"


def log_to_stderr(form: str = "text", level: str = "info", cache: Path | None = None) -> None:
    """Log as a mount does: lines with time (UTC), level and module, or one JSON object per line.

    Args:
        form: `text` or `json`.
        level: the lowest level that is written: debug, info, warning or error.
        cache: the cache whose log file is rotated, if standard error is that file.
    """
    formatter: logging.Formatter = _Json() if form == "json" else _Text()
    owned = cache is not None and is_stderr(cache / LOG)
    handler = LogFile(cache / LOG) if cache and owned else logging.StreamHandler()
    _install(handler, formatter, logging.getLevelNamesMapping()[level.upper()])


def log_like_messages() -> None:
    """Log as a command does: warnings look like its messages, and bugs show no traceback."""
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
    """One JSON object per line; an AxonError's model, file and source are separate keys."""

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
        return json.dumps(line)  # ASCII, so no character can control a terminal


def _subject(record: logging.LogRecord) -> dict[str, Any]:
    arguments = record.args if isinstance(record.args, tuple) else ()
    for error in (one for one in arguments if isinstance(one, AxonError)):
        name = errno.errorcode.get(error.errno, str(error.errno))
        found = {key: getattr(error, key) for key in ("spec", "path", "source", "hint")}
        return {key: value for key, value in found.items() if value} | {"errno": name}
    return {}


class _Messages(logging.Handler):
    """Shows each record once on stderr.

    The fault of a source is deferred until the command shows progress or ends: the error that ends
    it may say the same and name the model.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if os.environ.get("AXONFS_DEBUG"):
            echo_err(self.format(record))
        elif record.msg == "%s" and _subject(record):
            deferred.append(record.getMessage())
        else:
            report(record.getMessage())


def safe_traceback(text: str) -> str:
    """A traceback with printable lines, indented to distinguish them from other log lines."""
    return "\n".join(f"  {printable(line, 1000)}" for line in text.splitlines())


def show_lines(logger: logging.Logger) -> None:
    """Write the lines of `logger` to standard error as they are."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO)


def _install(handler: logging.Handler, form: logging.Formatter, level: int) -> None:
    handler.setFormatter(form)
    logger = logging.getLogger("axonfs")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if os.environ.get("AXONFS_DEBUG") else level)
