"""A file that nothing has: read through the mount, against curl's ranges and then a read.

The mount and its cache are new each round, and so is curl's file. The origin is in the page cache,
nginx on loopback: what is compared is the work per byte, not a network. With both on a disk, and
with both on tmpfs, which takes the disk out. Also says what the mount's process paid per GiB.
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
    """A cold read, and what the process that served it used for it."""
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
    """Four ranges at a time, then the same read."""
    url, _ = origin.objects()[0]
    parts: list[Path] = []
    settle(2 * size)
    download = seconds(lambda: parts.extend(curl_ranges(origin, Wanted(url, size, "model"), work)))
    read = sum(seconds(lambda part=part: dd(part)) for part in parts)  # type: ignore[misc]
    for part in parts:
        part.unlink()
    return {"seconds": download + read, "download": download}


def compare(origin: Origin, work: Path, size: int, rounds: int) -> dict[str, Any]:
    """Both ways with their files in `work`."""
    ways = {
        "mount": lambda: through_mount(origin, work, size),
        "curl": lambda: with_curl(origin, work, size),
    }
    found = rounds_of(ways, rounds)
    part = ratio(found["mount"]["seconds"], found["curl"]["seconds"])
    return {**summaries(found), "ratio": round(part, 3)}


def run(asked: Experiment, name: str, time: float, cpu: float, *, tls: bool = False) -> None:
    """The experiment, plain or over TLS, held against those targets."""
    size = asked.size(256 * MIB, 2 * GIB)
    asked.figures["bytes"] = size
    with scratch() as disk, scratch(memory=True) as memory:
        authority = Authority.make(disk) if tls else None
        publish_model(write_model(disk / "model", 1, size), SPEC, disk / "registry")
        with serving(disk / "registry", disk, authority=authority) as origin:
            origin.warm()
            for where, work in (("disk", disk), ("tmpfs", memory)):
                figures = compare(origin, work, size, asked.rounds)
                asked.figures[where] = figures
                what = f"{name}, cache on {'a disk' if where == 'disk' else where}"
                asked.answer(Answer(what, "curl ×4, then read", figures["ratio"], "× time", time))
        spent = asked.figures["disk"]["mount"]["cpu_per_gib"]["median"]
        asked.answer(Answer(f"daemon CPU, {name}", "–", spent, "s/GiB", cpu))


def main() -> None:
    with experiment("cold", __doc__) as asked:
        run(asked, "cold read", TIME, CPU)


if __name__ == "__main__":
    main()
