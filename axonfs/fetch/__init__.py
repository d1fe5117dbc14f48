"""Brings absent chunks of objects into the store: which readers wait for what, and what goes first.

`Fetcher` builds the parts and has a `Feed` for each object in use. Imports run one way:

    fetcher → feed → {judge, runner} → {transfer, hedges} → ways → {trials, package} → stages
    stages → network → {bandwidth, lane} → schedule → download → pace

Imports catalog, sources and store. Trio thread only; the bytes of a job move in a worker thread.
"""

from axonfs.fetch.bandwidth import Bandwidth
from axonfs.fetch.download import Priority
from axonfs.fetch.feed import Feed
from axonfs.fetch.fetcher import Fetcher

__all__ = ["Bandwidth", "Feed", "Fetcher", "Priority"]
