"""AxonFS: mounts the models of registries as ordinary directories, and reads them from Python.

`axonfs.Client` is the public client; `axonfs.errors` has what it raises. Nothing is imported before
it is used: commands import this package as well.
"""

from axonfs._version import __version__

TYPE_CHECKING = False  # as typing's, which takes 2 ms to import

if TYPE_CHECKING:
    from axonfs import errors
    from axonfs.client.api import Client
    from axonfs.client.results import (
        FileInfo,
        ModelInfo,
        ModelListing,
        PinResult,
        Progress,
        Status,
        Version,
        Versions,
    )

__all__ = [
    "Client",
    "FileInfo",
    "ModelInfo",
    "ModelListing",
    "PinResult",
    "Progress",
    "Status",
    "Version",
    "Versions",
    "__version__",
    "errors",
]


if not TYPE_CHECKING:  # so that type checkers refuse what `__all__` does not name

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        if name == "errors":
            return import_module("axonfs.errors")
        part = "api" if name == "Client" else "results"
        return getattr(import_module(f"axonfs.client.{part}"), name)

    def __dir__():
        return __all__
