"""Sources of models: registries, hubs, and copies on this machine.

A source knows its models and where their bytes are. Imports http_client, formats and settings.
Sources run on the trio thread; only `Copies` and `HubCache` are for worker threads.
"""

from axonfs.sources.blob import Blob
from axonfs.sources.copies import Copies
from axonfs.sources.hub import HubSource
from axonfs.sources.hubcache import HubCache
from axonfs.sources.hubs import configured as configured_hubs
from axonfs.sources.hubs import hub_tokens
from axonfs.sources.oci import OciRegistry, oci_registries
from axonfs.sources.registry import RegistrySource
from axonfs.sources.signers import RegistrySigners
from axonfs.sources.sites import caches_report, site_caches
from axonfs.sources.source import Hub, Source

__all__ = [
    "Blob",
    "Copies",
    "Hub",
    "HubCache",
    "HubSource",
    "OciRegistry",
    "RegistrySigners",
    "RegistrySource",
    "Source",
    "caches_report",
    "configured_hubs",
    "hub_tokens",
    "oci_registries",
    "site_caches",
]
