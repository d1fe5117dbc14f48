"""The extension that answers an open with flags which pyfuse3 does not know, and knows requests.

It has no function here for large replies, which it writes without the interpreter's lock. Below the
adapter and passthrough. Imports no pyfuse3: the extension has to be loaded before it, so that
pyfuse3 finds its functions first. Trio thread only.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from types import ModuleType

log = logging.getLogger(__name__)


def _load() -> tuple[ModuleType | None, str | None]:
    """The extension, or why it is not there."""
    if "pyfuse3" in sys.modules:
        return None, "pyfuse3 was imported before the extension"
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_GLOBAL)
    try:
        from axonfs.fuse import _openreply
    except ImportError as exc:
        log.debug("opens are answered by libfuse: %s", exc)
        return None, "the extension is not built (install a C compiler and libfuse3-dev)"
    finally:
        sys.setdlopenflags(flags)
    return _openreply, None


_extension, UNAVAILABLE = _load()


def arm(handle: int, flags: int, backing_id: int = 0) -> None:
    """Have the open that is answered with `handle` say `flags` (FOPEN_*); no checkpoint until then.

    Does nothing where there is no extension.
    """
    if _extension is not None and UNAVAILABLE is None:
        _extension.arm(handle, flags, backing_id)


def request() -> int:
    """The kernel's number for the request that a handler was just called for: even, never used
    twice on a connection, and the same where the next worker is sent it again.

    0 where there is no extension. To be asked before the handler's first checkpoint.
    """
    if _extension is None or UNAVAILABLE is not None:
        return 0
    return int(_extension.request())


def inode() -> int:
    """The inode of the request that a handler was just called for; as `request`."""
    if _extension is None or UNAVAILABLE is not None:
        return 0
    return int(_extension.inode())


def flags() -> int:
    """The flags (O_*) of the open file that a handler was just called to read; as `request`."""
    if _extension is None or UNAVAILABLE is not None:
        return 0
    return int(_extension.flags())


def thread() -> int:
    """The id of the thread that asked; as `request`. 0 also for one in another pid namespace."""
    if _extension is None or UNAVAILABLE is not None:
        return 0
    return int(_extension.thread())


def on_interrupt(call: Callable[[int], object]) -> None:
    """Have `call` told the number of each request whose reader got a signal; as `request`.

    It is called in the trio thread and must not block. Never where there is no extension.
    """
    if _extension is not None and UNAVAILABLE is None:
        _extension.on_interrupt(call)


def unanswered() -> bool:
    """Whether what was armed was never said, which shows that libfuse goes past the extension."""
    return _extension is not None and _extension.disarm()
