"""How cost grows with the size of an object, the number of readers, and the number of versions.

Costs are per byte or per entry. The target is that the largest case costs no more than the
smallest, plus a quarter for noise. Objects are holes on the origin's disk (registries.py). Readers
share one cold object; each reads its own part. The largest object is read once, through a cache
that is smaller than the object.
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
    """Read the object once, with `readers` processes that start together."""
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
    """The cost of one GiB of a cold object."""
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
    """The cost of one entry in `ls -lR`, cold and warm."""
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
    trial: Experiment, what: str, found: Mapping[str, Mapping[str, list[float]]], figure: str
) -> None:
    """Answer with the cost of the largest case as a multiple of the smallest's, by medians."""
    names = list(found)
    medians = {name: summaries(found)[name][figure]["median"] for name in (names[0], names[-1])}
    times = medians[names[-1]] / medians[names[0]]
    against = f"{names[0]} (to {names[-1]})"
    trial.answer(Answer(f"{what} as it grows", against, times, "× cost", FLAT))


def sizes(trial: Experiment, work: Path) -> None:
    steps = [256 * MIB, 512 * MIB, GIB] if trial.quick else [GIB, 10 * GIB, 100 * GIB]
    names = [f"{size / GIB:g} GiB" for size in steps]
    ways = {}
    for name, size in zip(names, steps, strict=True):
        root = work / f"registry-{size}"
        write_giant(root, SPEC, size)
        ways[name] = partial(cold_object, root, work, size)
    *often, once = names
    found = rounds_of({name: ways[name] for name in often}, trial.rounds)
    found |= rounds_of({once: ways[once]}, 1)
    trial.figures["size"] = summaries(found)
    answer(trial, "time per byte, size of an object,", found, "seconds_per_gib")
    answer(trial, "daemon CPU per byte, size of an object,", found, "cpu_per_gib")


def readers(trial: Experiment, work: Path) -> None:
    size = trial.size(512 * MIB, 4 * GIB)
    write_giant(work / "readers", SPEC, size)
    ways = {
        f"{count} reader{'s' * (count > 1)}": partial(
            cold_object, work / "readers", work, size, count
        )
        for count in READERS
    }
    found: Found = rounds_of(ways, trial.rounds)
    trial.figures["readers"] = summaries(found)
    answer(trial, "time per byte, readers of a cold object,", found, "seconds_per_gib")


def versions(trial: Experiment, work: Path) -> None:
    ways = {}
    for count in (10, 100, 1_000) if trial.quick else (10, 100, 1_000, 10_000):
        root = work / f"versions-{count}"
        write_versions(root, count // 10, 10)
        ways[f"{count:,} versions"] = partial(listing, root, work, count)
    found = rounds_of(ways, trial.rounds)
    trial.figures["versions"] = summaries(found)
    answer(trial, "ls -lR per entry, cold,", found, "cold_ms_per_entry")
    answer(trial, "ls -lR per entry, warm,", found, "warm_ms_per_entry")


def main() -> None:
    with experiment("growth", __doc__, quick_rounds=1) as trial, scratch() as work:
        for part in (sizes, readers, versions):
            part(trial, work)


if __name__ == "__main__":
    main()
