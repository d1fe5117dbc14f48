"""Warm read of a complete local file through the mount, against the same file on the disk.

Two states. `again`: the second reader of a file, whose pages the kernel has kept. `first`: the
first reader, for whom the kernel has no pages of the mount's file yet. In both, the backing file
and the plain file are in the page cache, so the disk plays no part, and `first` shows the full cost
of the mount. With --readers, several processes share the files of a model of the same size.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
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
from bench.measure import Figures, ratio, rounds_of, seconds, summaries
from bench.origin import Origin, serving
from bench.readers import RANDOM_READS, Reader, direct, sequential, several, together, ways_to_read

SPEC = "bench/warm@1.0.0"
LEAST = 128 * MIB  # per file of several
# The states, and their names in the table.
STATES = {"first": "", "again": ", again"}
# The option of the mount, and the target as a part of the disk's speed.
MODES = {
    "with passthrough": ("--passthrough", 0.97),
    "without passthrough": ("--no-passthrough", 0.35),
}


@dataclass(frozen=True)
class Case:
    """A way of reading, by a number of processes."""

    reader: Reader
    readers: int

    def once(self, files: list[Path], dropped: list[Path]) -> Figures:
        """The seconds of one read, after dropping the pages of `dropped`."""
        for file in dropped:
            forget(file)
        if dropped:
            touch_memory(sum(file.stat().st_size for file in dropped))
        return {"seconds": seconds(lambda: together(self.reader, files, self.readers))}


def speed(
    case: Case, files: list[Path], plain: list[Path], state: str, rounds: int
) -> dict[str, Any]:
    """The mount's speed as a part of the disk's speed, with the figures behind it."""
    for file in (*plain, *files):
        sequential(file)
    # O_DIRECT bypasses the page cache.
    dropped = files if state == "first" and case.reader is not direct else []
    ways = {
        "mount": partial(case.once, files, dropped),
        "disk": partial(case.once, plain, []),
    }
    found = rounds_of(ways, rounds)
    part = ratio(found["disk"]["seconds"], found["mount"]["seconds"])
    return {**summaries(found), "speed": round(part, 3)}


def compare(trial: Experiment, origin: Origin, work: Path, mode: str) -> None:
    """Measure every reader in both states, through one mount."""
    option, target = MODES[mode]
    with cold_mount(origin.url, work, option) as mount:
        why = mount.status()["connection"]["why_no_passthrough"]
        if why and option == "--passthrough":
            trial.not_run.append(f"{mode}: {why}")
            return
        files = mount.weights(SPEC)
        plain = sorted(origin.paths(), key=lambda path: path.stat().st_size)[-len(files) :]
        for file in files:
            sequential(file)  # the handle is closed, so the next open may be passed through
        for readers, (name, reader), (state, whose) in itertools.product(
            trial.readers, ways_to_read(len(files)).items(), STATES.items()
        ):
            said = several(readers)
            figures = speed(Case(reader, readers), files, plain, state, trial.rounds)
            trial.figures[f"{mode}, {state}, {name}{said}"] = figures
            what, found = f"warm read, {name}, {mode}{said}{whose}", figures["speed"]
            trial.answer(Answer(what, "the file itself", found, "× speed", target, at_least=True))


def main() -> None:
    with experiment("warm", __doc__, readers=(1,)) as trial, scratch() as work:
        files = max(trial.readers)
        size = trial.size(256 * MIB, max(GIB, files * LEAST))  # else each read is mostly an open
        trial.figures |= {"bytes": size, "files": files, "random_reads": RANDOM_READS}
        model = write_model(work / "model", files, size // files)
        publish_model(model, SPEC, work / "registry")
        with serving(work / "registry", work) as origin:
            for mode in MODES:
                compare(trial, origin, work, mode)


if __name__ == "__main__":
    main()
