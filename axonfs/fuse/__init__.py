"""Answers FUSE requests by calls of vfs, and turns errors into errnos.

The only package that imports pyfuse3. Imports vfs and connection. Trio thread only; notices that
take time are sent from worker threads.
"""

# First: its extension must be loaded before pyfuse3, which the other modules import.
from axonfs.fuse import openreply  # isort: skip
from axonfs.fuse.accesslog import AccessLog
from axonfs.fuse.adapter import Adapter
from axonfs.fuse.operations import Operations
from axonfs.fuse.reads import NativeReads
from axonfs.fuse.session import HandshakeError, Session

__all__ = [
    "AccessLog",
    "Adapter",
    "HandshakeError",
    "NativeReads",
    "Operations",
    "Session",
    "openreply",
]
