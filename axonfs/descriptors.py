"""The limit on this process's open files, and the errors of calls that exceed it.

The store, the HTTP clients, the control socket and the registry server use this module. A shortage
of descriptors or memory concerns this process or machine: it passes, and neither the disk nor a
source is at fault. Any thread may call these functions.
"""

from __future__ import annotations

import errno
import logging
import resource
import time
from contextlib import suppress
from typing import TypeGuard

log = logging.getLogger(__name__)

SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
NO_THREAD = "can't start new thread"  # how Python says it, in a RuntimeError
# This part of the limit, and no more than so many, may be duplicates that native threads read.
NATIVE_PART, NATIVE_MOST = 8, 1024
# Seconds to wait before a call that met a shortage is retried.
PAUSE = 0.1
# Seconds between two warnings about shortages.
REPEAT_SECONDS = 300.0
_warned = float("-inf")


def raise_limit() -> None:
    """Raise the soft limit on open files to the hard limit.

    The soft limit defaults to 1024 for programs that use select(2), which this one does not.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # the hard limit is above what the kernel allows now
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit() -> int:
    """The number of descriptors that this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


def for_native_threads() -> int:
    """How many backing files native threads may have descriptors of their own for."""
    return min(limit() // NATIVE_PART, NATIVE_MOST)


def is_shortage(exc: BaseException | None) -> TypeGuard[OSError]:
    """Whether `exc` means that descriptors or memory ran out."""
    return isinstance(exc, OSError) and exc.errno in SHORTAGES


def complain(exc: BaseException) -> None:
    """Log a warning about a shortage, at most once in `REPEAT_SECONDS`."""
    global _warned
    now = time.monotonic()
    if now - _warned < REPEAT_SECONDS:
        return
    _warned = now
    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
        text += f"; this process may have {limit()} descriptors (ulimit -n, LimitNOFILE=)"
    log.warning("%s; calls that need more are retried", text)
