"""Sources of models, and the two HTTP clients below them. The only package that speaks HTTP."""

from axonfs.remote.bodies import Bodies, Location
from axonfs.remote.documents import Documents, Fetched
from axonfs.remote.hub import HubSource
from axonfs.remote.hubcache import Blob, HubCache
from axonfs.remote.hubs import configured as configured_hubs
from axonfs.remote.hubs import hub_tokens
from axonfs.remote.limits import Limits
from axonfs.remote.registry import RegistrySource
from axonfs.remote.routes import Routes, Trust
from axonfs.remote.source import DocumentCache, Hub, Source
from axonfs.remote.stalls import LEAST, Stall
from axonfs.remote.urls import Origin, shown

__all__ = [
    "LEAST",
    "Blob",
    "Bodies",
    "DocumentCache",
    "Documents",
    "Fetched",
    "Hub",
    "HubCache",
    "HubSource",
    "Limits",
    "Location",
    "Origin",
    "RegistrySource",
    "Routes",
    "Source",
    "Stall",
    "Trust",
    "configured_hubs",
    "hub_tokens",
    "shown",
]
