"""AxonFS: every model of a registry as a directory that is simply there."""

__version__ = "0.1.0"
