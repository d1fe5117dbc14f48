"""The limit of this process's descriptors, and the errors of calls that find none left.

At the root: the store, the HTTP clients, the control socket and the registry server share it. A
shortage is of this process or machine. It passes, and neither the disk nor a source is to blame.
Any thread.
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
# Until a call that met a shortage is worth another try, in seconds.
PAUSE = 0.1
REPEAT_SECONDS = 300.0
_warned = float("-inf")


def raise_limit() -> None:
    """Let this process have as many descriptors as it may give itself.

    The soft limit is 1024 for the sake of programs that use select(2); this one does not.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a hard limit above what the kernel allows now
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit() -> int:
    """How many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


def is_shortage(exc: BaseException | None) -> TypeGuard[OSError]:
    """Whether a call failed because descriptors or memory ran out."""
    return isinstance(exc, OSError) and exc.errno in SHORTAGES


def complain(exc: BaseException) -> None:
    """Say in the log that there is a shortage: a warning at first, and then every few minutes."""
    global _warned
    now = time.monotonic()
    if now - _warned < REPEAT_SECONDS:
        return
    _warned = now
    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    hint = f"this process may have {limit()} (ulimit -n, LimitNOFILE=)"
    log.warning("%s; what needs a descriptor or memory is tried again; %s", text, hint)
