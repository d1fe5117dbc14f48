"""Checks that every chunk of a pin's files is local and may be served.

`pin` ends with this check, and `pin --check` repeats it. It sends no requests. A file is complete
if the index has the bit of every chunk, if its bytes were compared with their sum or digest since
the machine was booted (else they are compared now), and if its backing file has data at each chunk:
a chunk in a hole is compared again. Bits that flip on the disk later are found by `verify` and the
scrub. Trio thread; disk reads and hashing run in threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field

import trio

from axonfs.catalog.tree import Version
from axonfs.errors import CorruptError
from axonfs.fetch import Feed
from axonfs.formats.manifest import FileEntry
from axonfs.ranges import Range, runs, split
from axonfs.service.context import Context
from axonfs.store import Store, StoredObject, hollow
from axonfs.units import counted, size

# Bytes checked per step, so that progress is shown and a cancellation is noticed.
STEP_BYTES = 64 << 20


@dataclass(slots=True)
class Proof:
    """The result: `missing` has the path of each incomplete file, and why it is incomplete.

    `chunks` and `size` count the objects of the complete files, each object once. `unverified`
    counts the complete files that have no digest to compare with.
    """

    files: int = 0
    chunks: int = 0
    size: int = 0
    unverified: int = 0
    missing: list[dict[str, str]] = field(default_factory=list)

    def lack(self, path: str, why: str) -> None:
        """Record an incomplete file."""
        self.missing.append({"path": path, "why": why})


async def prove(context: Context, version: Version, entries: Iterable[FileEntry]) -> Proof:
    """Check the files `entries`; chunks that were not compared since the last boot are now."""
    proof, seen = Proof(), dict[str, str | None]()
    for entry in entries:
        proof.files += 1
        if entry.digest not in seen:
            seen[entry.digest] = await _fault(context, version, entry)
            if seen[entry.digest] is None:
                proof.size += entry.size
                stored = await trio.to_thread.run_sync(context.store.object, entry)
                proof.chunks += stored.count
        if (why := seen[entry.digest]) is not None:
            proof.lack(entry.path, why)
        proof.unverified += entry.unverified and why is None
    return proof


async def _fault(context: Context, version: Version, entry: FileEntry) -> str | None:
    """Why a file is incomplete; None if it is complete."""
    if entry.size == 0:
        return None
    stored = await trio.to_thread.run_sync(context.store.object, entry)
    if not stored.present_bytes and not stored.quarantined:
        return f"all of its {size(entry.size)} are missing"
    try:
        with closing(await context.fetcher.open(version, entry)) as feed:
            await trio.to_thread.run_sync(feed.object.opened)
            await feed.prepare()
            if not feed.allowed:
                return "it cannot be verified, and its registry may not serve unverified files"
            return await _fault_of(context, version, feed)
    except CorruptError as exc:
        return f"is quarantined: {exc.what}"
    except OSError as exc:
        return f"its backing file cannot be read: {exc.strerror}"


async def _fault_of(context: Context, version: Version, feed: Feed) -> str | None:
    stored = feed.object
    everything = Range(0, stored.count)
    if stored.adopted(*everything) and not await trio.to_thread.run_sync(
        _can_judge, context.store, feed.entry
    ):
        return "its chunk table is missing, so its bytes cannot be verified"
    doubtful = await trio.to_thread.run_sync(_doubtful, stored)
    damaged = 0
    for part in (part for run in doubtful for part in split(run, _step(stored))):
        await context.events.send(_event(version, feed.entry, part.start * stored.chunk_size))
        damaged += len(await feed.check(part))
    absent = sum(stored.bytes_of(run).size for run in stored.missing(*everything))
    lacks = [f"{counted(damaged, 'chunk')} damaged on the disk"] if damaged else []
    lacks += [f"{size(absent)} of {size(feed.entry.size)} are missing"] if absent else []
    if not lacks and feed.uncompared:
        return "its bytes changed while they were compared"
    return ", ".join(lacks) or None


def _can_judge(store: Store, entry: FileEntry) -> bool:
    """Whether adopted chunks can be verified without a request."""
    single = entry.chunks is not None and entry.size <= entry.chunks.size
    return entry.chunks is None or single or store.table(entry) is not None


def _doubtful(stored: StoredObject) -> list[Range]:
    """Local chunks that were not checked since the boot, or that lie in a hole of the file."""
    found = stored.unchecked(0, stored.count) + hollow(stored)
    return runs(chunk for run in found for chunk in range(*run))


def _step(stored: StoredObject) -> int:
    return max(1, STEP_BYTES // stored.chunk_size)


def _event(version: Version, entry: FileEntry, done: int) -> dict[str, object]:
    return {
        "event": "progress",
        "spec": str(version.spec),
        "path": entry.path,
        "done": done,
        "total": entry.size,
    }
