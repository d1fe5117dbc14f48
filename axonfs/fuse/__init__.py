"""The only package that imports pyfuse3: FUSE requests in, vfs calls, errnos out."""

from axonfs.fuse.adapter import Adapter
from axonfs.fuse.session import Session, mounted, widen

__all__ = ["Adapter", "Session", "mounted", "widen"]
