"""The fixtures that all folders share, and what the whole run of the tests has in common."""

import os

import hypothesis

pytest_plugins = ["tests.support.fixtures"]

# The default limit depends on the free space of the machine; a test of the default unsets this.
os.environ["AXONFS_CACHE_SIZE"] = "4G"

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("axonfs", deadline=None)
hypothesis.settings.load_profile("axonfs")
