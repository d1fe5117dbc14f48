"""How cost grows: with the size of an object, with the number of readers, and of versions.

Each cost is per byte or per entry; flat means that the largest pays what the smallest does, with a
quarter for noise. Objects are holes on the origin's disk (registries.py). Readers share one cold
object, each reading its own part of it. The largest object is read once, into a cache that is
smaller than it is, so that it streams through.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bench.experiment import Answer, Experiment, experiment
from bench.fixtures import GIB, MIB, Mount, cold_mount, scratch, settle
from bench.measure import Figures, Found, rounds_of, seconds, summaries
from bench.metadata import list_all
from bench.origin import serving
from bench.registries import write_giant, write_versions

SPEC = "bench/giant@1.0.0"
FLAT = 1.25
READERS = (1, 8, 64)
ENTRIES_PER_VERSION = 5  # its files
CACHE = "--cache-size=20G"


def read_parts(mount: Mount, size: int, readers: int) -> None:
    """The object once, by that many processes that start together."""
    path, count = mount.version(SPEC) / "model.safetensors", size // MIB
    step = -(-count // readers)
    commands = [
        ["dd", f"if={path}", "of=/dev/null", "bs=1M", f"skip={at}", f"count={step}", "status=none"]
        for at in range(0, count, step)
    ]
    running = [subprocess.Popen(command) for command in commands]
    ended = [process.wait() for process in running]
    if any(ended):
        raise RuntimeError("a reader failed")


def cold_object(root: Path, work: Path, size: int, readers: int = 1) -> Figures:
    """What one GiB of a cold object costs."""
    with serving(root, work) as origin, cold_mount(origin.url, work, CACHE) as mount:
        settle(2 * size)
        before = mount.usage()
        took = seconds(lambda: read_parts(mount, size, readers))
        after = mount.usage()
    gib = size / GIB
    return {
        "seconds_per_gib": took / gib,
        "cpu_per_gib": (after.cpu - before.cpu) / gib,
        "peak_mb": after.peak / 1e6,
    }


def listing(root: Path, work: Path, versions: int) -> Figures:
    """What one entry costs in `ls -lR`, cold and warm."""
    entries = versions * ENTRIES_PER_VERSION
    with serving(root, work) as origin, cold_mount(origin.url, work) as mount:
        cold, warm = (seconds(lambda: list_all(mount.path / "bench")) for _ in range(2))
        peak = mount.usage().peak
    return {
        "cold_ms_per_entry": 1000 * cold / entries,
        "warm_ms_per_entry": 1000 * warm / entries,
        "peak_mb": peak / 1e6,
    }


def answer(
    asked: Experiment, what: str, found: Mapping[str, Mapping[str, list[float]]], figure: str
) -> None:
    """The largest's cost as a multiple of the smallest's, by medians."""
    names = list(found)
    medians = {name: summaries(found)[name][figure]["median"] for name in (names[0], names[-1])}
    times = medians[names[-1]] / medians[names[0]]
    against = f"{names[0]} (to {names[-1]})"
    asked.answer(Answer(f"{what} as it grows", against, times, "× cost", FLAT))


def sizes(asked: Experiment, work: Path) -> None:
    steps = [256 * MIB, 512 * MIB, GIB] if asked.quick else [GIB, 10 * GIB, 100 * GIB]
    names = [f"{size / GIB:g} GiB" for size in steps]
    ways = {}
    for name, size in zip(names, steps, strict=True):
        root = work / f"registry-{size}"
        write_giant(root, SPEC, size)
        ways[name] = partial(cold_object, root, work, size)
    *often, once = names
    found = rounds_of({name: ways[name] for name in often}, asked.rounds)
    found |= rounds_of({once: ways[once]}, 1)
    asked.figures["size"] = summaries(found)
    answer(asked, "time per byte, size of an object,", found, "seconds_per_gib")
    answer(asked, "daemon CPU per byte, size of an object,", found, "cpu_per_gib")


def readers(asked: Experiment, work: Path) -> None:
    size = asked.size(512 * MIB, 4 * GIB)
    write_giant(work / "readers", SPEC, size)
    ways = {
        f"{count} reader{'s' * (count > 1)}": partial(
            cold_object, work / "readers", work, size, count
        )
        for count in READERS
    }
    found: Found = rounds_of(ways, asked.rounds)
    asked.figures["readers"] = summaries(found)
    answer(asked, "time per byte, readers of a cold object,", found, "seconds_per_gib")


def versions(asked: Experiment, work: Path) -> None:
    ways = {}
    for count in (10, 100, 1_000) if asked.quick else (10, 100, 1_000, 10_000):
        root = work / f"versions-{count}"
        write_versions(root, count // 10, 10)
        ways[f"{count:,} versions"] = partial(listing, root, work, count)
    found = rounds_of(ways, asked.rounds)
    asked.figures["versions"] = summaries(found)
    answer(asked, "ls -lR per entry, cold,", found, "cold_ms_per_entry")
    answer(asked, "ls -lR per entry, warm,", found, "warm_ms_per_entry")


def main() -> None:
    with experiment("growth", __doc__, quick_rounds=1) as asked, scratch() as work:
        for part in (sizes, readers, versions):
            part(asked, work)


if __name__ == "__main__":
    main()
