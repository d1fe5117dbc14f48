"""Sources of models: registries, hubs, and Hugging Face's own cache on this machine.

A source knows its models and where their bytes are. Imports http_client, formats and settings.
Sources run on the trio thread; only `HubCache` is for worker threads.
"""

from axonfs.sources.hub import HubSource
from axonfs.sources.hubcache import Blob, HubCache
from axonfs.sources.hubs import configured as configured_hubs
from axonfs.sources.hubs import hub_tokens
from axonfs.sources.registry import RegistrySource
from axonfs.sources.source import Hub, Source

__all__ = [
    "Blob",
    "Hub",
    "HubCache",
    "HubSource",
    "RegistrySource",
    "Source",
    "configured_hubs",
    "hub_tokens",
]
