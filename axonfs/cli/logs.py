"""Where the package's log goes: a mount's log has times, a command's warnings are messages.

AXONFS_DEBUG=1 shows everything.
"""

from __future__ import annotations

import logging
import os
import time

from axonfs.names import printable


def log_to_stderr() -> None:
    """For a mount: lines with time (UTC), level and module."""
    form = logging.Formatter(
        "%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ"
    )
    form.converter = time.gmtime
    _install(form, logging.INFO)


def log_like_messages() -> None:
    """For a command: warnings read like its other messages, and a bug shows no traceback."""
    _install(_Message(), logging.WARNING)


class _Message(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        if os.environ.get("AXONFS_DEBUG"):
            return super().format(record)
        return f"axonfs: {printable(record.getMessage(), 1000)}"


def _install(form: logging.Formatter, level: int) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(form)
    logger = logging.getLogger("axonfs")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if os.environ.get("AXONFS_DEBUG") else level)
