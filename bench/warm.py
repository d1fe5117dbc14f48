"""(b) A file that is local and whole: read through the mount, against the same file on the disk.

Two states. `again`: the second reader of a file, whose pages the kernel has kept. `first`: the
first reader after a start, for whom the kernel holds no page of the mount's file yet; the backing
file, and the plain file it is compared with, are in the page cache in both. That takes the disk
out, so `first` is the most that the mount can cost.
"""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from bench.measure import options, ratio, rounds_of, seconds, summaries, write_result
from bench.rig import (
    GIB,
    MIB,
    Mount,
    mounted,
    publish_model,
    scratch,
    serving,
    touch_memory,
    write_model,
)

PAGE = 4096
READS = 20_000

Reader = Callable[[Path], None]


def sequential(path: Path) -> None:
    """What dd bs=1M does, without dd's start."""
    buffer = bytearray(MIB)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def at_random(path: Path) -> None:
    """4 KiB at random places, the same ones each time."""
    places, buffer = random.Random(0), bytearray(PAGE)
    pages = path.stat().st_size // PAGE
    with open(path, "rb", buffering=0) as file:
        for _ in range(READS):
            os.preadv(file.fileno(), [buffer], places.randrange(pages) * PAGE)


def sweep(path: Path) -> None:
    """One byte of every page of a mapping, front to back, as a loader of tensors touches it."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        for offset in range(0, len(mapping), 64 * MIB):
            mapping[offset : offset + 64 * MIB : PAGE]


READERS: dict[str, Reader] = {"sequential": sequential, "random": at_random, "mmap": sweep}


def forget(path: Path) -> None:
    """Drop the kernel's pages of one file, and leave everybody else's alone."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def once(reader: Reader, path: Path, *, dropped: Path | None) -> Mapping[str, float]:
    """Seconds of one read, after the pages of `dropped` went."""
    if dropped is not None:
        forget(dropped)
        touch_memory(dropped.stat().st_size)
    return {"seconds": seconds(lambda: reader(path))}


def compare(mount: Mount, plain: Path, rounds: int) -> dict[str, object]:
    """Every reader in both states, with how fast the mount is as a part of the disk's speed."""
    file = mount.path / "bench/warm/1.0.0/model-00000.safetensors"
    sequential(file)
    sequential(plain)
    figures: dict[str, object] = {"bytes": file.stat().st_size, "random_reads": READS}
    for state, dropped in (("again", None), ("first", file)):
        for name, reader in READERS.items():
            if dropped is None:
                sequential(file)
            ways = {
                "mount": partial(once, reader, file, dropped=dropped),
                "disk": partial(once, reader, plain, dropped=None),
            }
            found = rounds_of(ways, rounds)
            speed = ratio(found["disk"]["seconds"], found["mount"]["seconds"])
            figures[f"{state} {name}"] = {**summaries(found), "speed": round(speed, 3)}
    return figures


def main() -> None:
    chosen = options(__doc__ or "")
    size = 256 * MIB if chosen.quick else GIB
    with scratch() as work:
        publish_model(write_model(work / "model", 1, size), "bench/warm@1.0.0", work / "registry")
        with serving(work / "registry", work) as origin:
            biggest = max(origin.paths(), key=lambda path: path.stat().st_size)
            with mounted(origin.url, work / "cache") as mount:
                figures = compare(mount, biggest, chosen.rounds)
    write_result("warm", quick=chosen.quick, rounds=chosen.rounds, figures=figures)


if __name__ == "__main__":
    main()
