"""Warm read of a complete local file through the mount, against the same file on the disk.

Two states. `again`: the second reader of a file, whose pages the kernel has kept. `first`: the
first reader, for whom the kernel has no pages of the mount's file yet. In both, the backing file
and the plain file are in the page cache, so the disk plays no part, and `first` shows the full cost
of the mount.
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
# The states, and their names in the table.
STATES = {"first": "", "again": ", again"}
# The option of the mount, and the target as a part of the disk's speed.
MODES = {
    "with passthrough": ("--passthrough", 0.97),
    "without passthrough": ("--no-passthrough", 0.35),
}


def once(reader: Reader, path: Path, *, dropped: Path | None) -> Mapping[str, float]:
    """The seconds of one read, after dropping the pages of `dropped`."""
    if dropped is not None:
        forget(dropped)
        touch_memory(dropped.stat().st_size)
    return {"seconds": seconds(lambda: reader(path))}


def speed(reader: Reader, file: Path, plain: Path, state: str, rounds: int) -> dict[str, Any]:
    """The mount's speed as a part of the disk's speed, with the figures behind it."""
    sequential(plain)
    sequential(file)
    # O_DIRECT bypasses the page cache.
    dropped = file if state == "first" and reader is not direct else None
    ways = {
        "mount": partial(once, reader, file, dropped=dropped),
        "disk": partial(once, reader, plain, dropped=None),
    }
    found = rounds_of(ways, rounds)
    part = ratio(found["disk"]["seconds"], found["mount"]["seconds"])
    return {**summaries(found), "speed": round(part, 3)}


def compare(trial: Experiment, origin: Origin, work: Path, mode: str) -> None:
    """Measure every reader in both states, through one mount."""
    option, target = MODES[mode]
    plain = max(origin.paths(), key=lambda path: path.stat().st_size)
    with cold_mount(origin.url, work, option) as mount:
        why = mount.status()["connection"]["why_no_passthrough"]
        if why and option == "--passthrough":
            trial.not_run.append(f"{mode}: {why}")
            return
        file = mount.version(SPEC) / "model-00000.safetensors"
        sequential(file)  # the handle is closed, so the next open may be passed through
        for name, reader in READERS.items():
            for state, whose in STATES.items():
                figures = speed(reader, file, plain, state, trial.rounds)
                trial.figures[f"{mode}, {state}, {name}"] = figures
                what = f"warm read, {name}, {mode}{whose}"
                found = figures["speed"]
                trial.answer(
                    Answer(what, "the file itself", found, "× speed", target, at_least=True)
                )


def main() -> None:
    with experiment("warm", __doc__) as trial, scratch() as work:
        size = trial.size(256 * MIB, GIB)
        trial.figures |= {"bytes": size, "random_reads": RANDOM_READS}
        publish_model(write_model(work / "model", 1, size), SPEC, work / "registry")
        with serving(work / "registry", work) as origin:
            for mode in MODES:
                compare(trial, origin, work, mode)


if __name__ == "__main__":
    main()
