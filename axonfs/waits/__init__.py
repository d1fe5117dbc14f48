"""Which programs wait for the mount, for what, and since when.

Above fuse, whose requests wait, and fetch, which brings what they wait for; below daemon. The steps
of axonfs.steps lead from a request to what is done for it now. Trio thread only.
"""

from axonfs.waits.waits import Waits, nameless

__all__ = ["Waits", "nameless"]
