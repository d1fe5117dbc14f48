"""Publishing: a model directory into a registry that any web server can serve.

Registry side: beside the mount, below the commands; nothing here speaks HTTP. Objects go first,
then chunk tables, then the manifest, and the lists of versions last, so a reader never meets a
name whose bytes are not there, whatever moment a publisher dies at.
"""

from axonfs.publish.publisher import Published, PublishProgress, publish

__all__ = ["PublishProgress", "Published", "publish"]
