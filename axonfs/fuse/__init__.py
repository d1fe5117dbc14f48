"""Answers FUSE requests by calls of vfs, and turns errors into errnos.

The only package that imports pyfuse3; importing the package alone does not. Imports vfs and
connection. Trio thread only; notices that take time are sent from worker threads.
"""

import sys

from axonfs.connection.libfuse import bundled

if (_bundled := bundled()) is not None:
    __path__.append(str(_bundled))  # _native
    sys.path.insert(0, str(_bundled))  # pyfuse3

# First: its extension must be loaded before pyfuse3, which other modules here import.
from axonfs.fuse import openreply

__all__ = ["openreply"]
