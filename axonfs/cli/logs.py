"""Configures logging: a mount's log lines have times, a command's warnings look like its messages.

AXONFS_DEBUG=1 shows everything. Texts from sources are made printable, so that they cannot control
a terminal or forge a line.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from axonfs.cli.logfile import LOG, LogFile, is_stderr
from axonfs.cli.output import deferred, echo_err, report
from axonfs.errors import AxonError
from axonfs.names import printable

_TIME = "%Y-%m-%dT%H:%M:%SZ"
# Levels and the priorities of syslog(3) that they stand for.
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def log_to_stderr(form: str = "text", level: str = "info", cache: Path | None = None) -> None:
    """Log as a mount does: lines with time (UTC), level and module, or one JSON object per line.

    Where standard error is systemd's journal, each line begins with its priority, which the journal
    takes off: `journalctl -p warning` then shows what it should.

    Args:
        form: `text` or `json`.
        level: the lowest level that is written: debug, info, warning or error.
        cache: the cache whose log file is rotated, if standard error is that file.
    """
    formatter: logging.Formatter = _Json() if form == "json" else _Text()
    if _is_journal():
        formatter = _Prioritised(formatter)
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


class _Prioritised(logging.Formatter):
    """The lines of another formatter, with systemd's prefix for their priority (sd-daemon(3))."""

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        lines = self._form.format(record).split("\n")
        return "\n".join(f"<{priority}>{line}" for line in lines)


def _is_journal() -> bool:
    """Whether standard error leads to systemd's journal, by what systemd says of it."""
    here = os.fstat(sys.stderr.fileno())
    return os.environ.get("JOURNAL_STREAM") == f"{here.st_dev}:{here.st_ino}"


class _Json(_Safe):
    """One JSON object per line; the model, the file, the source and the cause are separate keys."""

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
    """What a record is about: an AxonError, or an argument that has `facts`."""
    for one in record.args if isinstance(record.args, tuple) else ():
        if isinstance(one, AxonError):
            found: dict[str, Any] = {key: getattr(one, key) for key in ("spec", "path", "source")}
            found |= {"cause": one.what, "hint": one.hint}
            found["errno"] = errno.errorcode.get(one.errno, str(one.errno))
        elif hasattr(one, "facts"):
            found = one.facts()
        else:
            continue
        return {key: value for key, value in found.items() if value}
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
