"""What the mount looks like and how its files read, without a word of FUSE."""

from axonfs.vfs.vfs import Attributes, Vfs

__all__ = ["Attributes", "Vfs"]
