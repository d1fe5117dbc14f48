"""Where the package's log goes: a mount's log has times, a command's warnings are messages.

AXONFS_DEBUG=1 shows everything. Nothing in a line can command a terminal or begin another line,
whoever the text is from.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from axonfs.cli.output import said
from axonfs.names import printable


def log_to_stderr() -> None:
    """For a mount: lines with time (UTC), level and module."""
    form = _Safe("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    form.converter = time.gmtime
    _install(form, logging.INFO)


def log_like_messages() -> None:
    """For a command: warnings read like its other messages, and a bug shows no traceback."""
    _install(_Message(), logging.WARNING)


class _Safe(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record), 4000)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return safe_traceback(super().formatException(ei))


class _Message(_Safe):
    def format(self, record: logging.LogRecord) -> str:
        if os.environ.get("AXONFS_DEBUG"):
            return super().format(record)
        said.add(record.getMessage())
        return f"axonfs: {printable(record.getMessage(), 1000)}"


def safe_traceback(text: str) -> str:
    """A traceback whose every line is safe, and told by its indent from a line of the log."""
    return "\n".join(f"  {printable(line, 1000)}" for line in text.splitlines())


def _install(form: logging.Formatter, level: int) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(form)
    logger = logging.getLogger("axonfs")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if os.environ.get("AXONFS_DEBUG") else level)
