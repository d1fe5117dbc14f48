"""The tree of the mount and the content of its files, independent of FUSE."""

from axonfs.vfs.vfs import Attributes, Vfs

__all__ = ["Attributes", "Vfs"]
