"""Peak resident memory of the mount's process after a large cold read.

The object is a hole on the origin's disk (registries.py), but all its bytes are sent, verified and
stored.
"""

from __future__ import annotations

from pathlib import Path

from bench.experiment import Answer, experiment
from bench.fixtures import GIB, cold_mount, scratch
from bench.measure import rounds_of, seconds, summaries
from bench.origin import Origin, serving
from bench.readers import dd
from bench.registries import write_giant

SPEC = "bench/giant@1.0.0"
MEGABYTES = 150.0


def cold_read(origin: Origin, work: Path, name: str) -> dict[str, float]:
    with cold_mount(origin.url, work) as mount:
        before = mount.usage().peak
        took = seconds(lambda: dd(mount.version(SPEC) / name))
        return {"before_mb": before / 1e6, "peak_mb": mount.usage().peak / 1e6, "seconds": took}


def main() -> None:
    with experiment("memory", __doc__, quick_rounds=1) as trial, scratch() as work:
        size = trial.size(2 * GIB, 10 * GIB)
        trial.figures["bytes"] = size
        name = write_giant(work / "registry", SPEC, size)
        with serving(work / "registry", work) as origin:
            found = rounds_of({"mount": lambda: cold_read(origin, work, name)}, trial.rounds)
        trial.figures |= summaries(found)
        peak = max(found["mount"]["peak_mb"])
        what = f"resident memory, {size >> 30} GiB cold"
        trial.answer(Answer(what, "–", peak, "MB", MEGABYTES))


if __name__ == "__main__":
    main()
