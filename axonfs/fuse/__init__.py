"""The only package that imports pyfuse3: FUSE requests in, vfs calls, errnos out."""

# First: its extension must be loaded before pyfuse3, which the others import.
from axonfs.fuse import openreply  # isort: skip
from axonfs.fuse.adapter import Adapter
from axonfs.fuse.session import HandshakeError, Session

__all__ = ["Adapter", "HandshakeError", "Session", "openreply"]
