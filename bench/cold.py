"""(a) A file that nothing has: read through the mount, against curl's ranges and then a read.

The mount and its cache are new each round, and so is curl's file. The origin is in the page cache,
nginx on loopback: what is compared is the work per byte, not a network. Also says what the
mount's process paid per GiB.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bench.measure import options, ratio, rounds_of, seconds, summaries, write_result
from bench.rig import (
    GIB,
    MIB,
    Origin,
    mounted,
    publish_model,
    scratch,
    serving,
    touch_memory,
    write_model,
)

STREAMS = 4
_numbers = itertools.count()


def read(path: Path) -> None:
    """Read a file to its end, a MiB at a time."""
    subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"], check=True)


def through_mount(origin: Origin, work: Path, size: int) -> Mapping[str, float]:
    """A cold read, and what the process that served it used for it."""
    os.sync()
    cache = work / f"cache-{next(_numbers)}"
    with mounted(origin.url, cache) as mount:
        file = mount.path / "bench/cold/1.0.0/model-00000.safetensors"
        file.stat()
        touch_memory(2 * size)
        before = mount.usage()
        took = seconds(lambda: read(file))
        after = mount.usage()
    shutil.rmtree(cache)
    return {
        "seconds": took,
        "user_per_gib": (after.user - before.user) * GIB / size,
        "system_per_gib": (after.system - before.system) * GIB / size,
    }


def with_curl(origin: Origin, work: Path, size: int) -> Mapping[str, float]:
    """Four ranges at a time to disk, then the same read."""
    os.sync()
    url = max(origin.objects(), key=lambda item: item[1])[0]
    parts = [work / f"part-{number}" for number in range(STREAMS)]
    touch_memory(2 * size)
    downloaded = seconds(lambda: _curl(url, size, parts))
    read_back = sum(seconds(partial(read, part)) for part in parts)
    for part in parts:
        part.unlink()
    return {"seconds": downloaded + read_back, "download": downloaded}


def _curl(url: str, size: int, parts: list[Path]) -> None:
    step = -(-size // len(parts))
    commands = [
        ["curl", "-sf", "-r", f"{at}-{min(at + step, size) - 1}", "-o", str(part), url]
        for at, part in zip(range(0, size, step), parts, strict=True)
    ]
    running = [subprocess.Popen(command) for command in commands]
    failed = [process.args for process in running if process.wait()]
    if failed:
        raise RuntimeError(f"curl could not fetch {url}")


def main() -> None:
    chosen = options(__doc__ or "")
    size = 512 * MIB if chosen.quick else 2 * GIB
    with scratch() as work:
        publish_model(write_model(work / "model", 1, size), "bench/cold@1.0.0", work / "registry")
        with serving(work / "registry", work) as origin:
            origin.warm()
            ways = {
                "mount": lambda: through_mount(origin, work, size),
                "curl": lambda: with_curl(origin, work, size),
            }
            found = rounds_of(ways, chosen.rounds)
    figures = summaries(found)
    figures["bytes"] = size
    figures["ratio"] = round(ratio(found["mount"]["seconds"], found["curl"]["seconds"]), 3)
    write_result("cold", quick=chosen.quick, rounds=chosen.rounds, figures=figures)


if __name__ == "__main__":
    main()
