"""The version of this package; a module of its own, since `axonfs` itself is the public client."""

__version__ = "0.1.0"
