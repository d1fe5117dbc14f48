"""Which chunks an object in use gives up where the cache is full. Below feed. Trio thread only."""

from __future__ import annotations

from axonfs.fetch.download import Download
from axonfs.fetch.readahead import Readahead
from axonfs.ranges import Range, runs

# Readers step back a little (safetensors reads a header twice), so that much is not punched.
KEEP_BEHIND = 8 << 20


def behind_readers(download: Download, readahead: Readahead, goal: int) -> list[Range]:
    """Runs of local chunks, about `goal` bytes, that no reader is at or will come to soon; first
    ones first."""
    stored, chosen = download.object, list[int]()
    size = stored.chunk_size
    near = readahead.near(size, KEEP_BEHIND)
    for chunk in range(stored.count):
        if len(chosen) * size >= goal:
            break
        idle = chunk not in near and download.flying(chunk) is None
        if idle and not stored.missing(chunk, chunk + 1):
            chosen.append(chunk)
    return runs(chosen)
