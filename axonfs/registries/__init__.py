"""What is done with a whole registry: it is checked and repaired.

Above `publish`, which writes into a registry, and `sources`, which read one; below the commands.
Trio runs in a thread of its own, for the documents of registries that are read. All else blocks.
"""

from axonfs.registries.check import Checked, Fault, check
from axonfs.registries.places import storage_of
from axonfs.registries.reader import Reader, readers

__all__ = ["Checked", "Fault", "Reader", "check", "readers", "storage_of"]
