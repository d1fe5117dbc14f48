"""A file that is local and whole: read through the mount, against the same file on the disk.

Two states. `again`: the second reader of a file, whose pages the kernel has kept. `first`: the
first reader after a start, for whom the kernel holds no page of the mount's file yet; the backing
file, and the plain file it is compared with, are in the page cache in both. That takes the disk
out, so `first` is the most that the mount can cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench.experiment import Answer, Experiment, experiment
from bench.fixtures import (
    GIB,
    MIB,
    cold_mount,
    forget,
    publish_model,
    scratch,
    touch_memory,
    write_model,
)
from bench.measure import ratio, rounds_of, seconds, summaries
from bench.origin import Origin, serving
from bench.readers import RANDOM_READS, READERS, Reader, direct, sequential

SPEC = "bench/warm@1.0.0"
# The states, and how the table names them.
STATES = {"first": "", "again": ", again"}
# How to mount, and the part of the disk's speed to reach.
MODES = {
    "with passthrough": ("--passthrough", 0.97),
    "without passthrough": ("--no-passthrough", 0.35),
}


def once(reader: Reader, path: Path, *, dropped: Path | None) -> Mapping[str, float]:
    """Seconds of one read, after the pages of `dropped` went."""
    if dropped is not None:
        forget(dropped)
        touch_memory(dropped.stat().st_size)
    return {"seconds": seconds(lambda: reader(path))}


def speed(reader: Reader, file: Path, plain: Path, state: str, rounds: int) -> dict[str, Any]:
    """How fast the mount is as a part of the disk's speed, with what that was made from."""
    sequential(plain)
    sequential(file)
    # O_DIRECT goes past the page cache by itself.
    dropped = file if state == "first" and reader is not direct else None
    ways = {
        "mount": partial(once, reader, file, dropped=dropped),
        "disk": partial(once, reader, plain, dropped=None),
    }
    found = rounds_of(ways, rounds)
    part = ratio(found["disk"]["seconds"], found["mount"]["seconds"])
    return {**summaries(found), "speed": round(part, 3)}


def compare(asked: Experiment, origin: Origin, work: Path, mode: str) -> None:
    """Every reader in both states through one mount."""
    option, target = MODES[mode]
    plain = max(origin.paths(), key=lambda path: path.stat().st_size)
    with cold_mount(origin.url, work, option) as mount:
        why = mount.status()["connection"]["why_no_passthrough"]
        if why and option == "--passthrough":
            asked.not_run.append(f"{mode}: {why}")
            return
        file = mount.version(SPEC) / "model-00000.safetensors"
        sequential(file)  # the handle is closed, so the next open may be passed through
        for name, reader in READERS.items():
            for state, whose in STATES.items():
                figures = speed(reader, file, plain, state, asked.rounds)
                asked.figures[f"{mode}, {state}, {name}"] = figures
                what = f"warm read, {name}, {mode}{whose}"
                found = figures["speed"]
                asked.answer(
                    Answer(what, "the file itself", found, "× speed", target, at_least=True)
                )


def main() -> None:
    with experiment("warm", __doc__) as asked, scratch() as work:
        size = asked.size(256 * MIB, GIB)
        asked.figures |= {"bytes": size, "random_reads": RANDOM_READS}
        publish_model(write_model(work / "model", 1, size), SPEC, work / "registry")
        with serving(work / "registry", work) as origin:
            for mode in MODES:
                compare(asked, origin, work, mode)


if __name__ == "__main__":
    main()
