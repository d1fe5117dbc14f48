"""Publishing copies a model directory into a registry, whose files lie in a storage.

Registry side: beside the mount, below the commands. The order of writes is objects,
chunk tables, the manifest, the lists of versions. So a publisher may die at any moment, and a
reader still never finds a name whose bytes are missing. Blocking.
"""

from axonfs.publish.oci import Pushed, publish_oci
from axonfs.publish.publisher import Published, publish
from axonfs.publish.together import PublishProgress

__all__ = ["PublishProgress", "Published", "Pushed", "publish", "publish_oci"]
