"""Names and attributes of 1,000 versions: `ls -lR` cold and warm, then stat of every entry.

Compared with the same tree of sparse files on the disk, also in the kernel's caches. nginx's log
must show that a warm `ls -lR` sends no requests.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bench.experiment import Answer, experiment
from bench.fixtures import cold_mount, scratch
from bench.measure import Figures, ratio, rounds_of, seconds, summaries
from bench.origin import Origin, serving
from bench.registries import write_versions

MODELS, VERSIONS = 100, 10
TIMES = 2.0


def list_all(folder: Path) -> None:
    subprocess.run(["ls", "-lR", str(folder)], check=True, stdout=subprocess.DEVNULL)


def copy_names(source: Path, target: Path) -> None:
    """The same tree with sparse files."""
    for folder, folders, files in os.walk(source):
        here = target / Path(folder).relative_to(source)
        here.mkdir()
        for name in (*folders, *files):
            path = Path(folder) / name
            if path.is_symlink():
                (here / name).symlink_to(path.readlink())
            elif path.is_file():
                (here / name).touch()
                os.truncate(here / name, path.stat().st_size)


def every_entry(folder: Path) -> list[str]:
    return [
        os.path.join(at, name) for at, folders, files in os.walk(folder) for name in folders + files
    ]


def stat_all(entries: list[str]) -> None:
    for entry in entries:
        os.lstat(entry)


def through_mount(origin: Origin, work: Path) -> Figures:
    """One mount: `ls -lR` cold and warm, and stat; with the number of requests of each."""
    with cold_mount(origin.url, work) as mount:
        models = mount.path / "bench"
        start = origin.requests()
        cold = seconds(lambda: list_all(models))
        cold_requests = origin.requests()
        warm = seconds(lambda: list_all(models))
        entries = every_entry(models)
        stat = seconds(lambda: stat_all(entries))
        sent = {
            "requests_cold": cold_requests - start,
            "requests_warm": origin.requests() - cold_requests,
        }
    return {"cold": cold, "warm": warm, "stat": stat, "entries": len(entries), **sent}


def on_disk(copy: Path) -> Figures:
    entries = every_entry(copy)
    return {
        "warm": seconds(lambda: list_all(copy)),
        "stat": seconds(lambda: stat_all(entries)),
    }


def main() -> None:
    with experiment("metadata", __doc__, quick_rounds=2) as trial, scratch() as work:
        write_versions(work / "registry", MODELS, VERSIONS)
        with serving(work / "registry", work) as origin:
            copy = work / "copy"
            with cold_mount(origin.url, work) as mount:
                copy_names(mount.path / "bench", copy)
            ways = {"mount": lambda: through_mount(origin, work), "disk": lambda: on_disk(copy)}
            found = rounds_of(ways, trial.rounds)
        trial.figures |= summaries(found)
        mount_, disk = found["mount"], found["disk"]
        name = f"of {MODELS * VERSIONS:,} versions"
        cold = trial.figures["mount"]["cold"]["median"]
        trial.answer(Answer(f"ls -lR {name}, cold", "–", cold, "s"))
        warm = ratio(mount_["warm"], disk["warm"])
        trial.answer(Answer(f"ls -lR {name}, warm", "a copy on the disk", warm, "× time", TIMES))
        stat = ratio(mount_["stat"], disk["stat"])
        trial.answer(Answer(f"stat {name}, again", "a copy on the disk", stat, "× time", TIMES))
        sent = max(mount_["requests_warm"])
        trial.answer(Answer(f"ls -lR {name}, warm", "nothing sent", sent, "requests", 0))


if __name__ == "__main__":
    main()
