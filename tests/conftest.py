"""The fixtures that all folders share, and the cache limit of all commands that tests start."""

import os

pytest_plugins = ["tests.support.fixtures"]

# The default limit depends on the free space of the machine; a test of the default unsets this.
os.environ["AXONFS_CACHE_SIZE"] = "4G"
