"""Brings absent chunks of objects into the store: which readers wait for what, and what goes first.

`Fetcher` builds the parts and has a `Feed` for each object in use. Imports run one way:

    fetcher → feed → {judge, runner} → {transfer, hedges} → ways → {trials, package} → stages
    stages → network → {bandwidth, lane, watcher} → schedule → download → pace

Imports catalog, sources and store. Trio thread only; the bytes of a job move in a worker thread.
"""

from axonfs.fetch.bandwidth import Bandwidth
from axonfs.fetch.download import Download, Job, Priority
from axonfs.fetch.feed import Feed
from axonfs.fetch.fetcher import Fetcher
from axonfs.fetch.watcher import Watcher

__all__ = ["Bandwidth", "Download", "Feed", "Fetcher", "Job", "Priority", "Watcher"]
