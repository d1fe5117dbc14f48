"""Finds libfuse3 and what was compiled for it: the extension `_native`, and pyfuse3.

libfuse3 is never bundled: its fusermount3 and its configuration are the distribution's. A release
wheel has `_native` and pyfuse3 once for each soname of libfuse3, since structures differ, in
`fuse/bundled/SONAME`. An installation from source has one `_native`, and the environment's pyfuse3.
"""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from pathlib import Path

from axonfs.distro import install_extra, install_fuse
from axonfs.errors import UnsupportedError

BUNDLED = Path(__file__).parents[1] / "fuse" / "bundled"
# Newest first. libfuse3.so.4 is libfuse 3.17 and later.
SONAMES = ("libfuse3.so.4", "libfuse3.so.3")


def soname() -> str | None:
    """The newest libfuse3 of this machine; None if the loader finds none."""
    return next((name for name in SONAMES if _why_not(name) is None), None)


def bundled() -> Path | None:
    """Where a release wheel has `_native` and pyfuse3 for this machine's libfuse3."""
    if not BUNDLED.is_dir() or (name := soname()) is None:
        return None
    return BUNDLED / name


def check_libfuse() -> str:
    """Check, without importing pyfuse3, that it can be imported; return what it uses.

    Raises:
        UnsupportedError: libfuse3 or pyfuse3 is missing.
    """
    if BUNDLED.is_dir():
        if (name := soname()) is None:
            raise UnsupportedError("libfuse3 is not installed", hint=install_fuse())
        return name
    spec = find_spec("pyfuse3")
    if spec is None or spec.origin is None:
        hint = install_extra("pyfuse3")
        raise UnsupportedError("pyfuse3 is not installed", hint=hint)
    if why_not := _why_not(spec.origin):
        raise UnsupportedError(f"pyfuse3 cannot be loaded: {why_not}", hint=install_fuse())
    return f"pyfuse3 at {Path(spec.origin).parent}"


def _why_not(library: str) -> str | None:
    """Why the loader cannot load a library; None if it can."""
    try:
        ctypes.CDLL(library)
    except OSError as exc:
        return str(exc)
    return None
