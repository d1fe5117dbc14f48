"""Sources of models, and the two HTTP clients below them. The only package that speaks HTTP."""

from axonfs.remote.bodies import Bodies, Location
from axonfs.remote.documents import Documents, Fetched
from axonfs.remote.limits import Limits
from axonfs.remote.registry import RegistrySource
from axonfs.remote.routes import Routes
from axonfs.remote.source import DocumentCache, Source

__all__ = [
    "Bodies",
    "DocumentCache",
    "Documents",
    "Fetched",
    "Limits",
    "Location",
    "RegistrySource",
    "Routes",
    "Source",
]
