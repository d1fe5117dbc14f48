"""Cold read of a file through the mount, against curl with four ranges and then a read.

Each round has a new mount, a new cache and a new file for curl. The origin is nginx on loopback
with its files in the page cache, so the figures show the work per byte, not a network. Measured
with cache and file on a disk, and with both on tmpfs. Also gives the mount's processor time per
GiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.downloads import Wanted, curl_ranges
from bench.experiment import Answer, Experiment, experiment
from bench.fixtures import GIB, MIB, cold_mount, publish_model, scratch, settle, write_model
from bench.measure import ratio, rounds_of, seconds, summaries
from bench.origin import Origin, serving
from bench.readers import dd
from tests.support.wiring import Authority

SPEC = "bench/cold@1.0.0"
TIME, CPU = 1.0, 1.5


def through_mount(origin: Origin, work: Path, size: int) -> Mapping[str, float]:
    """A cold read: its seconds, and the processor time of the mount."""
    with cold_mount(origin.url, work, bundle=origin.bundle) as mount:
        file = mount.version(SPEC) / "model-00000.safetensors"
        file.stat()
        settle(2 * size)
        before = mount.usage()
        took = seconds(lambda: dd(file))
        after = mount.usage()
    return {
        "seconds": took,
        "cpu_per_gib": (after.cpu - before.cpu) * GIB / size,
        "user_per_gib": (after.user - before.user) * GIB / size,
        "system_per_gib": (after.system - before.system) * GIB / size,
    }


def with_curl(origin: Origin, work: Path, size: int) -> Mapping[str, float]:
    """Download four ranges at a time, then read the parts."""
    url, _ = origin.objects()[0]
    parts: list[Path] = []
    settle(2 * size)
    download = seconds(lambda: parts.extend(curl_ranges(origin, Wanted(url, size, "model"), work)))
    read = sum(seconds(lambda part=part: dd(part)) for part in parts)  # type: ignore[misc]
    for part in parts:
        part.unlink()
    return {"seconds": download + read, "download": download}


def compare(origin: Origin, work: Path, size: int, rounds: int) -> dict[str, Any]:
    """Compare both ways, with their files in `work`."""
    ways = {
        "mount": lambda: through_mount(origin, work, size),
        "curl": lambda: with_curl(origin, work, size),
    }
    found = rounds_of(ways, rounds)
    part = ratio(found["mount"]["seconds"], found["curl"]["seconds"])
    return {**summaries(found), "ratio": round(part, 3)}


def run(trial: Experiment, name: str, time: float, cpu: float, *, tls: bool = False) -> None:
    """Run the experiment, plain or over TLS; `time` and `cpu` are the targets."""
    size = trial.size(256 * MIB, 2 * GIB)
    trial.figures["bytes"] = size
    with scratch() as disk, scratch(memory=True) as memory:
        authority = Authority.make(disk) if tls else None
        publish_model(write_model(disk / "model", 1, size), SPEC, disk / "registry")
        with serving(disk / "registry", disk, authority=authority) as origin:
            origin.warm()
            for where, work in (("disk", disk), ("tmpfs", memory)):
                figures = compare(origin, work, size, trial.rounds)
                trial.figures[where] = figures
                what = f"{name}, cache on {'a disk' if where == 'disk' else where}"
                trial.answer(Answer(what, "curl ×4, then read", figures["ratio"], "× time", time))
        spent = trial.figures["disk"]["mount"]["cpu_per_gib"]["median"]
        trial.answer(Answer(f"daemon CPU, {name}", "–", spent, "s/GiB", cpu))


def main() -> None:
    with experiment("cold", __doc__) as trial:
        run(trial, "cold read", TIME, CPU)


if __name__ == "__main__":
    main()
