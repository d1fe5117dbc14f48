"""The cache directory: an LMDB index and sparse backing files.

Sits beside sources, below catalog and fetch. The layers above fetch and verify bytes, and use only
`Store` to keep them. The crash rule holds throughout: data is written before the index.
"""

from axonfs.formats.document import Document
from axonfs.store.backing import LINKED_MODE, file_system, in_memory, read_all
from axonfs.store.evict import HEADROOM, Rules
from axonfs.store.health import DISK_FAULTS
from axonfs.store.metadata import Pin, ScrubState, StoredManifest
from axonfs.store.objects import StoredObject
from axonfs.store.openfiles import Descriptor
from axonfs.store.recheck import hollow
from axonfs.store.records import ObjectInfo
from axonfs.store.store import Store

__all__ = [
    "DISK_FAULTS",
    "HEADROOM",
    "LINKED_MODE",
    "Descriptor",
    "Document",
    "ObjectInfo",
    "Pin",
    "Rules",
    "ScrubState",
    "Store",
    "StoredManifest",
    "StoredObject",
    "file_system",
    "hollow",
    "in_memory",
    "read_all",
]
