"""What bounds the mount on a machine with many cores: its busiest thread, and the GIL.

More cores help only with work that several threads do at the same time. One thread serves at most
1 GiB in the processor time that it needs for a GiB. All threads together serve at most 1 GiB in the
time that a GiB needs under the GIL. The smaller of the two rates is the ceiling. Several processes
read the files of one model: cold over HTTP, cold over TLS, and warm without passthrough, where the
kernel has no pages of the mount's files.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bench.experiment import Answer, Experiment, experiment
from bench.fixtures import (
    GIB,
    MIB,
    Mount,
    cold_mount,
    forget,
    publish_model,
    scratch,
    settle,
    threads_of,
    touch_memory,
    write_model,
)
from bench.gil import watched
from bench.measure import Figures, rounds_of, seconds, summaries
from bench.origin import Origin, serving
from bench.readers import dd, several, together
from tests.support.wiring import Authority

SPEC = "bench/scale@1.0.0"
READERS = (1, 4, 8)
# Targets in seconds per GiB, and the number of readers that they are for.
JUDGED = 4
COLD, TLS, WARM = "cold read", "cold read over TLS", "warm read without passthrough"
TARGETS = {
    COLD: {"main thread": 0.05, "busiest thread": 0.15, "under the GIL": 0.12, "all threads": 1.2},
    TLS: {},
    WARM: {"main thread": 0.05, "busiest thread": 0.15, "under the GIL": 0.12},
}
FIGURES = ("main thread", "busiest thread", "under the GIL", "all threads")


def costs(
    main: int, before: Mapping[int, float], after: Mapping[int, float], share: float, size: int
) -> Figures:
    """The figures in seconds per GiB, from the processor times of the threads by their ids.

    Args:
        share: the part of the processor time that was spent under the GIL.
    """
    used = {tid: total - before.get(tid, 0.0) for tid, total in after.items()}
    every = sum(used.values())
    found = (used[main], max(used.values()), share * every, every)
    return {name: value * GIB / size for name, value in zip(FIGURES, found, strict=True)}


def ceiling(figures: Figures) -> float:
    """The GiB/s that neither the busiest thread nor the GIL lets the mount exceed."""
    return 1 / max(figures["busiest thread"], figures["under the GIL"])


def measured(mount: Mount, files: list[Path], readers: int) -> Figures:
    """Read the files once; what that costs the process that serves the mount."""
    worker, size = mount.worker, sum(file.stat().st_size for file in files)
    before = threads_of(worker)
    with watched(worker) as share:
        took = seconds(partial(together, dd, files, readers))
    found = costs(worker, before, threads_of(worker), share.value, size)
    return {**found, "seconds": took}


def cold(origin: Origin, work: Path, readers: int) -> Figures:
    with cold_mount(origin.url, work, bundle=origin.bundle) as mount:
        files = mount.weights(SPEC)
        settle(2 * origin.bytes())
        return measured(mount, files, readers)


def warm(origin: Origin, work: Path, readers: int) -> Figures:
    with cold_mount(origin.url, work, "--no-passthrough") as mount:
        files = mount.weights(SPEC)
        together(dd, files, readers)
        for file in files:
            forget(file)
        touch_memory(origin.bytes())
        return measured(mount, files, readers)


def answer(trial: Experiment, way: str, readers: int, medians: Figures) -> None:
    """The ceiling and the figures of one way, with targets for `JUDGED` readers."""
    targets, rest = TARGETS[way] if readers == JUDGED else {}, f", {way}{several(readers)}"
    trial.answer(Answer(f"ceiling{rest}", "–", ceiling(medians), "GiB/s"))
    for name in FIGURES:
        trial.answer(Answer(f"{name}{rest}", "–", medians[name], "s/GiB", targets.get(name)))


def compare(trial: Experiment, plain: Origin, encrypted: Origin, work: Path) -> None:
    """Measure every way with every number of readers."""
    ways = {COLD: partial(cold, plain), TLS: partial(cold, encrypted), WARM: partial(warm, plain)}
    cases = {
        f"{way}{several(readers)}": (way, readers) for way in ways for readers in trial.readers
    }
    runs = {case: partial(ways[way], work, readers) for case, (way, readers) in cases.items()}
    found = rounds_of(runs, trial.rounds)
    trial.figures |= summaries(found)
    for case, (way, readers) in cases.items():
        medians = {name: statistics.median(values) for name, values in found[case].items()}
        answer(trial, way, readers, medians)


def main() -> None:
    with (
        experiment("scale", __doc__, quick_rounds=2, readers=READERS) as trial,
        scratch() as work,
    ):
        size, files = trial.size(512 * MIB, 2 * GIB), max(trial.readers)
        trial.figures |= {"bytes": size, "files": files}
        root = work / "registry"
        publish_model(write_model(work / "model", files, size // files), SPEC, root)
        with (
            serving(root, work) as plain,
            serving(root, work, authority=Authority.make(work)) as encrypted,
        ):
            plain.warm()
            compare(trial, plain, encrypted, work)


if __name__ == "__main__":
    main()
