"""The HTTP client: small documents on the event loop, the bytes of objects in threads.

The only package that sends HTTP requests. Imports the modules at the root and no other package.
`Documents` runs on the trio thread. `Bodies` and `Calls` block; their callers run them in worker
threads.
"""

from axonfs.http_client.answers import Answer
from axonfs.http_client.asking import Asking
from axonfs.http_client.bodies import Bodies
from axonfs.http_client.caches import (
    SLICE,
    Cache,
    Caches,
    CacheState,
    SiteCaches,
    slice_chunks,
    slice_key,
)
from axonfs.http_client.calls import Calls, Said
from axonfs.http_client.channel import why_no_records
from axonfs.http_client.connections import Ends
from axonfs.http_client.documents import Documents
from axonfs.http_client.faults import UP
from axonfs.http_client.limits import Limits
from axonfs.http_client.local import Files, check_registry, path_of
from axonfs.http_client.location import Location
from axonfs.http_client.lookups import Lookups, check_srv
from axonfs.http_client.pauses import Pauses
from axonfs.http_client.reading import MOMENT, Reading
from axonfs.http_client.routes import Routes, Trust
from axonfs.http_client.signing import Signed, Signer, Signers
from axonfs.http_client.stages import pausing, retrying
from axonfs.http_client.stalls import LEAST, Stall
from axonfs.http_client.urls import Origin, shown, split_url
from axonfs.http_client.wire import CancelledReadError
from axonfs.http_client.writes import Writer, Written

__all__ = [
    "LEAST",
    "MOMENT",
    "SLICE",
    "UP",
    "Answer",
    "Asking",
    "Bodies",
    "Cache",
    "CacheState",
    "Caches",
    "Calls",
    "CancelledReadError",
    "Documents",
    "Ends",
    "Files",
    "Limits",
    "Location",
    "Lookups",
    "Origin",
    "Pauses",
    "Reading",
    "Routes",
    "Said",
    "Signed",
    "Signer",
    "Signers",
    "SiteCaches",
    "Stall",
    "Trust",
    "Writer",
    "Written",
    "check_registry",
    "check_srv",
    "path_of",
    "pausing",
    "retrying",
    "shown",
    "slice_chunks",
    "slice_key",
    "split_url",
    "why_no_records",
]
