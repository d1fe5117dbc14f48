"""The FUSE connection: /dev/fuse, mount and unmount, the INIT handshake, and what is mounted.

Below fuse, which serves a connection, and cli, which unmounts. Imports neither pyfuse3 nor trio,
so that a small process can hold a connection for others.
"""

from axonfs.connection.handshake import Offer, Terms, amend, parse_offer
from axonfs.connection.mounting import (
    claimed,
    clear_dead,
    connect,
    connection_of,
    detach,
    readahead_setting,
    release,
    release_at,
    release_dead,
    user_allow_other,
)

__all__ = [
    "Offer",
    "Terms",
    "amend",
    "claimed",
    "clear_dead",
    "connect",
    "connection_of",
    "detach",
    "parse_offer",
    "readahead_setting",
    "release",
    "release_at",
    "release_dead",
    "user_allow_other",
]
