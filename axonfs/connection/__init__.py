"""The FUSE connection: /dev/fuse, mount and unmount, the INIT handshake, and the mount table.

Below fuse, which serves a connection, and cli, which unmounts. Imports errors alone, and neither
pyfuse3 nor trio, so that the holder stays small. Blocking; any thread.
"""

from axonfs.connection.handshake import Terms, amend, parse_offer
from axonfs.connection.mounting import (
    clear_dead,
    readahead_setting,
    release,
    release_at,
    release_dead,
)

__all__ = [
    "Terms",
    "amend",
    "clear_dead",
    "parse_offer",
    "readahead_setting",
    "release",
    "release_at",
    "release_dead",
]
