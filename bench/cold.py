"""Cold read of a file through the mount, against curl with four ranges and then a read.

With --readers, several processes share the files of a model of the same size, and curl downloads
four of them at a time. Each round has a new mount, a new cache and new files for curl. The origin
is nginx on loopback with its files in the page cache, so the figures show the work per byte, not a
network. Measured with cache and file on a disk, and with both on tmpfs. Also gives the mount's
processor time per GiB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.downloads import Wanted, four_streams
from bench.experiment import Answer, Experiment, experiment
from bench.fixtures import GIB, MIB, cold_mount, publish_model, scratch, settle, write_model
from bench.measure import Figures, ratio, rounds_of, seconds, summaries
from bench.origin import Origin, serving
from bench.readers import dd, several, together
from tests.support.wiring import Authority

SPEC = "bench/cold@1.0.0"
TIME, CPU = 1.2, 1.2


def through_mount(origin: Origin, work: Path, readers: int) -> Figures:
    """A cold read: its seconds, and the processor time of the mount."""
    with cold_mount(origin.url, work, bundle=origin.bundle) as mount:
        files = mount.weights(SPEC)
        size = sum(file.stat().st_size for file in files)
        settle(2 * size)
        before = mount.usage()
        took = seconds(lambda: together(dd, files, readers))
        after = mount.usage()
    return {
        "seconds": took,
        "cpu_per_gib": (after.cpu - before.cpu) * GIB / size,
        "user_per_gib": (after.user - before.user) * GIB / size,
        "system_per_gib": (after.system - before.system) * GIB / size,
    }


def with_curl(origin: Origin, work: Path, files: int, readers: int) -> Figures:
    """Download four ranges or files at a time, then read what was downloaded."""
    largest = origin.objects()[:files]
    wanted = [Wanted(url, size, f"model-{at}") for at, (url, size) in enumerate(largest)]
    parts: list[Path] = []
    settle(2 * sum(file.size for file in wanted))
    download = seconds(lambda: parts.extend(four_streams(origin, wanted, work)))
    read = seconds(lambda: together(dd, parts, readers))
    for part in parts:
        part.unlink()
    return {"seconds": download + read, "download": download}


def compare(origin: Origin, work: Path, files: int, readers: int, rounds: int) -> dict[str, Any]:
    """Compare both ways, with their files in `work`."""
    ways = {
        "mount": lambda: through_mount(origin, work, readers),
        "curl": lambda: with_curl(origin, work, files, readers),
    }
    found = rounds_of(ways, rounds)
    part = ratio(found["mount"]["seconds"], found["curl"]["seconds"])
    return {**summaries(found), "ratio": round(part, 3)}


def run(trial: Experiment, name: str, time: float, cpu: float, *, tls: bool = False) -> None:
    """Run the experiment, plain or over TLS; `time` and `cpu` are the targets."""
    size, files = trial.size(256 * MIB, 2 * GIB), max(trial.readers)
    trial.figures |= {"bytes": size, "files": files}
    with scratch() as disk, scratch(memory=True) as memory:
        authority = Authority.make(disk) if tls else None
        publish_model(write_model(disk / "model", files, size // files), SPEC, disk / "registry")
        with serving(disk / "registry", disk, authority=authority) as origin:
            origin.warm()
            for readers in trial.readers:
                said = several(readers)
                for where, work in (("a disk", disk), ("tmpfs", memory)):
                    figures = compare(origin, work, files, readers, trial.rounds)
                    trial.figures[f"{where}{said}"] = figures
                    part, what = figures["ratio"], f"{name}, cache on {where}{said}"
                    trial.answer(Answer(what, "curl ×4, then read", part, "× time", time))
                spent = trial.figures[f"a disk{said}"]["mount"]["cpu_per_gib"]["median"]
                trial.answer(Answer(f"daemon CPU, {name}{said}", "–", spent, "s/GiB", cpu))


def main() -> None:
    with experiment("cold", __doc__, readers=(1,)) as trial:
        run(trial, "cold read", TIME, CPU)


if __name__ == "__main__":
    main()
