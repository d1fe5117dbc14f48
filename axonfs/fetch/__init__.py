"""Demand and readahead for chunks: feeds (one per object in use), jobs (one per ranged GET)."""

from axonfs.fetch.feed import Feed
from axonfs.fetch.fetcher import Fetcher
from axonfs.fetch.job import Priority

__all__ = ["Feed", "Fetcher", "Priority"]
