"""Power loss: caches put together from what several moments had on the disk, read after a boot.

While a cache is filled, its index and its backing files are copied now and then, between two
writes. A machine that loses power keeps any subset of the pages that were not synced, so a round
takes each page of each file from the last moment, from an earlier one, or leaves it out; files end
early or are gone; the index is a new one, an old one, one of torn pages, cut short, or none. Then
everything is read through the fetch path and compared with plain bytes.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from axonfs.errors import BusyError
from axonfs.formats.manifest import DEFAULT_CHUNK_SIZE, FileEntry, chunk_count
from axonfs.names import parse_spec
from axonfs.ranges import Range, chunk_range
from axonfs.store import StoredManifest
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import Rig, rig, without_tables
from tests.support.profile import SEED, report, scaled
from tests.support.registry import published
from tests.support.stores import BOOT, NEXT_BOOT

CHUNK = 1 << 16
PAGE = 4096
LARGE = DEFAULT_CHUNK_SIZE  # of objects without a chunk table
TABLES, WHOLES = "nlp/tables@1.0.0", "nlp/wholes@1.0.0"
SIZES = {
    TABLES: {"a.bin": 14 * CHUNK + 999, "b.bin": 6 * CHUNK, "c.bin": 5000},
    WHOLES: {"d.bin": 3 * LARGE + 999, "e.bin": LARGE, "f.bin": 7000},
}
MOMENTS = 8
# What becomes of the index; `None` stands for one that is gone.
INDEXES = ("new", "old", "torn", "cut", "zeroed", "gone")


@dataclass
class Moment:
    """What the kernel had been told to write by then, and which chunks the index knew."""

    index: bytes
    files: dict[str, bytes]
    known: dict[str, set[int]]


@dataclass
class Disk:
    """The moments of one filling, oldest first."""

    manifests: list[StoredManifest] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)

    def entries(self) -> Iterator[tuple[str, FileEntry]]:
        """Each object once: config.json is the same in all."""
        for stored in self.manifests:
            for entry in stored.manifest.files:
                if entry.path in SIZES[str(stored.manifest.spec)]:
                    yield str(stored.manifest.spec), entry


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[FaultyOrigin]:
    for spec, sizes in SIZES.items():
        published(tmp_path, sizes, spec=spec, chunk_size=CHUNK)
    without_tables(tmp_path / "registry", WHOLES)
    with FaultyOrigin(tmp_path / "registry") as server:
        yield server


def plain(tmp_path: Path, spec: str, path: str) -> bytes:
    return tmp_path.joinpath("models", *parse_spec(spec).segments, path).read_bytes()


async def fill(cache: Path, origin: FaultyOrigin, chance: random.Random) -> Disk:
    """Read everything in an order of chance, give some of it up, and read it again."""
    disk = Disk()
    async with rig(cache, origin.url, boot=BOOT) as parts:
        for spec in SIZES:
            await parts.tree.version(parse_spec(spec))
            stored = parts.store.manifest(parse_spec(spec))
            assert stored is not None
            disk.manifests.append(stored)
        work = list(disk.entries()) * 2
        chance.shuffle(work)
        stops = sorted(chance.sample(range(1, len(work)), MOMENTS - 1))
        for number, (spec, entry) in enumerate(work):
            await read_some(parts, spec, entry, chance)
            if number in stops:
                disk.moments.append(moment(cache, parts, disk))
        for spec, entry in disk.entries():
            with closing(await parts.open(entry.path, spec)) as feed:
                await parts.read(feed)
        disk.moments.append(moment(cache, parts, disk))
    return disk


async def read_some(parts: Rig, spec: str, entry: FileEntry, chance: random.Random) -> None:
    with closing(await parts.open(entry.path, spec)) as feed:
        start = chance.randrange(entry.size)
        await parts.read(feed, start, chance.randint(start + 1, entry.size))
        if chance.random() < 0.3:
            first = chance.randrange(feed.object.count)
            feed.object.punch(first, chance.randint(first + 1, feed.object.count))
    if chance.random() < 0.2:
        parts.store.sync()
    if chance.random() < 0.1:
        with suppress(BusyError):  # its job may settle a moment after its reader
            parts.store.drop(entry.digest)


def moment(cache: Path, parts: Rig, disk: Disk) -> Moment:
    files, known = {}, {}
    for _, entry in disk.entries():
        path = Path(parts.store._files.backing(entry.digest))
        if path.exists():
            files[entry.digest] = path.read_bytes()
        local = parts.store.object(entry).local()
        known[entry.digest] = {chunk for run in local for chunk in range(*run)}
    return Moment((cache / "index.lmdb").read_bytes(), files, known)


def pages(data: bytes) -> list[bytes]:
    return [data[start : start + PAGE] for start in range(0, len(data), PAGE)]


def lose(
    cache: Path, disk: Disk, chance: random.Random, kind: str, where: Path
) -> dict[str, set[int]]:
    """Write to `cache` what the machine may have after its power was lost; returns the chunks, by
    digest, that must not be fetched again."""
    shutil.rmtree(cache, ignore_errors=True)
    (cache / "objects").mkdir(parents=True)
    known = write_index(cache / "index.lmdb", disk, chance, kind)
    kept: dict[str, set[int]] = {}
    for spec, entry in disk.entries():
        want = plain(where, spec, entry.path)
        path = cache / "objects" / entry.digest[:2] / entry.digest
        data = write_file(path, entry, disk, chance)
        whole = {
            chunk
            for chunk in range(chunk_count(entry.size, chunk_size(entry)))
            if same(data, want, chunk_range(chunk, chunk_size(entry), entry.size))
        }
        if known is not None:
            kept[entry.digest] = whole & known.get(entry.digest, set())
    return kept


def chunk_size(entry: FileEntry) -> int:
    return entry.chunks.size if entry.chunks else LARGE


def same(data: bytes | None, want: bytes, part: Range) -> bool:
    start, stop = part
    return data is not None and data[start:stop] == want[start:stop]


def write_index(
    path: Path, disk: Disk, chance: random.Random, kind: str
) -> dict[str, set[int]] | None:
    """Which chunks the index knows, None if that is unknown."""
    last = disk.moments[-1]
    early = chance.choice(disk.moments[:-1])
    if kind == "gone":
        return {}
    if kind in ("new", "old"):
        chosen = last if kind == "new" else early
        path.write_bytes(chosen.index)
        return chosen.known
    new, old = pages(last.index), pages(early.index)
    if kind == "torn":
        share = chance.random()
        mixed = [
            old[number] if number < len(old) and chance.random() < share else page
            for number, page in enumerate(new)
        ]
        path.write_bytes(b"".join(mixed))
    elif kind == "cut":
        path.write_bytes(last.index[: chance.randrange(len(last.index))])
    else:
        for number in chance.sample(range(len(new)), min(len(new), 3)):
            new[number] = bytes(len(new[number]))
        path.write_bytes(b"".join(new))
    return None


def write_file(path: Path, entry: FileEntry, disk: Disk, chance: random.Random) -> bytes | None:
    """One backing file of pages from several moments; None where it is gone."""
    versions = [item.files[entry.digest] for item in disk.moments if entry.digest in item.files]
    fate = chance.random()
    if fate < 0.1 or not versions:
        return None
    result = bytearray(versions[-1])
    dropped = 0.0 if fate < 0.4 else chance.random() * 0.3
    for start in range(0, len(result), PAGE):
        if chance.random() < dropped:
            older = chance.choice([*versions, b""])[start : start + PAGE]
            size = len(result[start : start + PAGE])
            result[start : start + PAGE] = older.ljust(size, b"\0")
    if fate > 0.9:
        del result[chance.randrange(len(result)) :]
    path.parent.mkdir(exist_ok=True)
    sparse = chance.random() < 0.5  # file systems differ in what they leave of a lost page
    with path.open("wb") as file:
        for start in range(0, len(result), PAGE):
            page = bytes(result[start : start + PAGE])
            if any(page) or not sparse:
                file.seek(start)
                file.write(page)
        file.truncate(len(result))
    return bytes(result)


def fetched(origin: FaultyOrigin, disk: Disk) -> dict[str, list[int]]:
    """The chunks asked for since, by digest, as often as they were."""
    found: dict[str, list[int]] = {}
    sizes = {entry.digest: chunk_size(entry) for _, entry in disk.entries()}
    for seen in origin.requests:
        if "/objects/" in seen.path:
            digest = seen.path.rpartition("/")[2]
            first, _, last = seen.headers["range"].removeprefix("bytes=").partition("-")
            chunks = range(int(first) // sizes[digest], int(last) // sizes[digest] + 1)
            found.setdefault(digest, []).extend(chunks)
    return found


async def read_everything(
    cache: Path, origin: FaultyOrigin, disk: Disk, where: Path, chance: random.Random
) -> None:
    """Right bytes of every file, some read in pieces; a second process finds it all there."""
    for turn in range(2):
        asked = len(origin.requests)
        async with rig(cache, origin.url, boot=NEXT_BOOT) as parts:
            work = list(disk.entries())
            chance.shuffle(work)
            for spec, entry in work:
                want = plain(where, spec, entry.path)
                with closing(await parts.open(entry.path, spec)) as feed:
                    await feed.prepare()
                    cut = chance.randrange(entry.size)
                    for start, stop in (Range(cut, entry.size), Range(0, entry.size)):
                        got = await parts.read(feed, start, stop)
                        assert got == want[start:stop], f"wrong bytes of {spec} {entry.path}"
                    assert feed.freeze(), "complete, checked, and not fit for passthrough"
                    feed.object.thaw()
            sizes = {entry.digest: entry.size for _, entry in work}
            assert parts.store.usage() == sum(sizes.values())
        if turn:
            assert len(origin.requests) == asked, "fetched again by the next process"


async def test_what_was_not_synced_is_found_and_only_that_is_fetched_again(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    cache, rounds, lost, kept = tmp_path / "cache", scaled(12, 360), 0, 0
    for number in range(rounds):
        kind, filled = INDEXES[number % len(INDEXES)], tmp_path / f"filled{number}"
        chance = random.Random(f"{SEED} {number}")
        disk = await fill(filled, origin, chance)
        there = lose(cache, disk, chance, kind, tmp_path)
        origin.requests.clear()
        await read_everything(cache, origin, disk, tmp_path, chance)
        for digest, chunks in fetched(origin, disk).items():
            assert len(chunks) == len(set(chunks)), "a chunk was fetched twice"
            again = there.get(digest, set()) & set(chunks)
            assert not again, f"round {number}, {kind} index: chunks {again} were there and right"
            lost += len(chunks)
        kept += sum(map(len, there.values()))
        shutil.rmtree(filled)
    assert lost
    assert kept
    report("power_loss", rounds=rounds, fetched=lost, kept=kept)
