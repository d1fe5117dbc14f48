"""What is done with a whole registry: it is checked, repaired, copied, counted and cleaned.

Above `publish`, which writes into a registry, and `sources`, which read one; below the commands.
Trio runs in a thread of its own, for the documents of registries that are read. All else blocks.
"""

from axonfs.registries.check import Checked, Fault, check
from axonfs.registries.collect import Collected, Removal, gc, removal, remove
from axonfs.registries.copy import Copied, wanted_specs
from axonfs.registries.oci_copy import copy, sides
from axonfs.registries.places import storage_of
from axonfs.registries.reader import Reader, readers
from axonfs.registries.stats import Stats, stats

__all__ = [
    "Checked",
    "Collected",
    "Copied",
    "Fault",
    "Reader",
    "Removal",
    "Stats",
    "check",
    "copy",
    "gc",
    "readers",
    "removal",
    "remove",
    "sides",
    "stats",
    "storage_of",
    "wanted_specs",
]
