"""Loads the C extension (native/), and uses the part that answers opens and describes requests.

Below the adapter and passthrough; reads.py uses the rest. Does not import pyfuse3: the extension
must be loaded before it, so that pyfuse3 finds the extension's functions before libfuse's. The
extension also writes large replies without the GIL, which needs no function here. Trio thread only.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

from axonfs.connection.libfuse import BUNDLED

log = logging.getLogger(__name__)

# Of the extension that fits this code; see native/module.c.
INTERFACE = 3


def _load() -> tuple[ModuleType | None, str | None]:
    """The extension if it is loaded, and why it cannot be used. One of another version is loaded,
    so that pyfuse3 has its functions: `watch` has to tell it of libfuse's descriptor."""
    if "pyfuse3" in sys.modules:
        return None, "pyfuse3 was imported before the extension"
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_GLOBAL)
    try:
        native = import_module("axonfs.fuse._native")
    except ModuleNotFoundError as exc:
        log.debug("libfuse and Python answer all requests: %s", exc)
        if BUNDLED.is_dir():
            return None, "libfuse3 is not installed"
        return None, "the extension is not built (install a C compiler and libfuse3-dev)"
    except ImportError as exc:
        return None, f"the extension cannot be loaded: {exc}"
    finally:
        sys.setdlopenflags(flags)
    if getattr(native, "INTERFACE", 1) != INTERFACE:
        return native, "the extension is of another version of AxonFS (install axonfs again)"
    return native, None


_extension, UNAVAILABLE = _load()


def extension() -> ModuleType | None:
    """The extension; None if it cannot be used."""
    return _extension if UNAVAILABLE is None else None


def watch(descriptor: int) -> bool:
    """Have pyfuse3 wait for libfuse's descriptor, which has become another file. False: it waits
    without the extension, and trio has to notice the file."""
    return _extension is not None and bool(_extension.watch(descriptor))


def arm(handle: int, flags: int, backing_id: int = 0) -> None:
    """Have the answer to an open that carries `handle` also carry `flags` (FOPEN_*).

    There must be no checkpoint before that answer. Does nothing without the extension.
    """
    if _extension is not None and UNAVAILABLE is None:
        _extension.arm(handle, flags, backing_id)


def request() -> int:
    """The kernel's number for the request whose handler was just called.

    It is even, is never used twice on a connection, and stays the same if the kernel resends the
    request to the next worker. 0 without the extension. Call it before the first checkpoint.
    """
    if _extension is None or UNAVAILABLE is not None:
        return 0
    return int(_extension.request())


def described() -> tuple[int, int, int, int]:
    """The number, inode and thread of the request whose handler was just called, and when it came
    (ns, by `time.monotonic_ns`); zeros without the extension. See `request`."""
    if _extension is None or UNAVAILABLE is not None:
        return 0, 0, 0, 0
    number, inode, thread, arrived = _extension.described()
    return number, inode, thread, arrived


def inode() -> int:
    """The inode of the request whose handler was just called; see `request`."""
    if _extension is None or UNAVAILABLE is not None:
        return 0
    return int(_extension.inode())


def flags() -> int:
    """The flags (O_*) of the open file that the handler was just called to read; see `request`."""
    if _extension is None or UNAVAILABLE is not None:
        return 0
    return int(_extension.flags())


def thread() -> int:
    """The id of the thread that asked, 0 if it is in another pid namespace; see `request`."""
    if _extension is None or UNAVAILABLE is not None:
        return 0
    return int(_extension.thread())


def on_interrupt(call: Callable[[int], object]) -> None:
    """Call `call` with the number of each request whose reader got a signal; see `request`.

    It runs in the trio thread and must not block. Without the extension it is never called.
    """
    if _extension is not None and UNAVAILABLE is None:
        _extension.on_interrupt(call)


def unanswered() -> bool:
    """Whether the armed answer was not given, which shows that libfuse bypasses the extension."""
    return _extension is not None and _extension.disarm()
