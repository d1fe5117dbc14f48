"""Open files: what is fetched ahead of reads that native threads answered."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from axonfs.catalog.tree import Version
from axonfs.fetch.readahead import Readahead
from axonfs.formats.manifest import FileEntry, Manifest
from axonfs.names import parse_spec
from axonfs.ranges import Range
from axonfs.vfs.files import Files
from axonfs.vfs.handle import Handle
from axonfs.vfs.places import File

MIB = 1 << 20
ENTRY = FileEntry("model.bin", 1 << 30, "0" * 64)
VERSION = Version(Manifest(parse_spec("nlp/one@1"), (ENTRY,), raw=b""), "http://x", None)


def opened(wanted: list[Range]) -> Handle:
    """A handle of a cold file with chunks of 1 MiB; `wanted` gets what it has fetched."""
    stored = SimpleNamespace(touch=lambda: None, chunk_size=MIB)
    readahead = Readahead(ENTRY.size)
    feed = SimpleNamespace(entry=ENTRY, object=stored, readahead=readahead, complete=False)
    feed.want = wanted.append
    return Handle(1, File(("nlp", "one", "1", ENTRY.path), VERSION, ENTRY), cast(Any, feed))


def test_all_that_lies_ahead_of_reads_told_together_is_fetched() -> None:
    fetcher = SimpleNamespace(store=SimpleNamespace(directory=Path("/")))
    files = Files(cast(Any, fetcher), cast(Any, None), cast(Any, None))
    wanted: list[Range] = []
    handle, asked = opened(wanted), 0
    for start in range(0, 64 * MIB, 2 * MIB):
        span = Range(start, start + 2 * MIB)
        asked = max(asked, span.stop // MIB)
        files.note_reads(handle, span, 2, absent=False)
        for ahead in wanted:
            assert ahead.start == asked
            asked = ahead.stop
        wanted.clear()
    assert asked > 64
