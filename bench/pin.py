"""Fetch a whole version: `axonfs pin`, against aria2c -x8 and curl, eight files at a time.

Each way starts as a command and ends with all files on a disk. `axonfs pin` also verifies them.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from bench.downloads import Wanted, aria2_files, curl_files
from bench.experiment import Answer, experiment
from bench.fixtures import (
    AXONFS,
    GIB,
    publish_model,
    quiet_environment,
    scratch,
    settle,
    write_model,
)
from bench.measure import ratio, rounds_of, seconds, summaries
from bench.origin import Origin, serving

SPEC = "bench/pin@1.0.0"
FILES = 8
TARGET = 1.0
_numbers = itertools.count()


def pin(origin: Origin, cache: Path) -> None:
    command = [*AXONFS, "pin", SPEC, "--registry", origin.url, "--cache", str(cache)]
    subprocess.run(command, check=True, capture_output=True, env=quiet_environment())


def into_new(work: Path, size: int, fetch: Callable[[Path], None]) -> Mapping[str, float]:
    """The seconds of one fetch into a new directory, which is removed afterwards."""
    folder = work / f"fetched-{next(_numbers)}"
    folder.mkdir()
    settle(size)
    took = seconds(lambda: fetch(folder))
    shutil.rmtree(folder)
    return {"seconds": took}


def main() -> None:
    with experiment("pin", __doc__) as trial, scratch() as work:
        size = trial.size(GIB, 4 * GIB)
        trial.figures |= {"bytes": size, "files": FILES}
        publish_model(write_model(work / "model", FILES, size // FILES), SPEC, work / "registry")
        with serving(work / "registry", work) as origin:
            origin.warm()
            objects = origin.objects()
            wanted = [Wanted(url, size, str(number)) for number, (url, size) in enumerate(objects)]
            ways = {
                "pin": lambda folder: pin(origin, folder),
                "aria2c -x8": lambda folder: aria2_files(wanted, folder),
                "curl": lambda folder: curl_files(origin, wanted, folder, FILES),
            }
            runs = {name: partial(into_new, work, size, way) for name, way in ways.items()}
            found = rounds_of(runs, trial.rounds)
        trial.figures |= summaries(found)
        for peer in ("aria2c -x8", "curl"):
            part = ratio(found["pin"]["seconds"], found[peer]["seconds"])
            trial.answer(
                Answer(f"pin of {size / GIB:g} GiB in {FILES} files", peer, part, "× time", TARGET)
            )


if __name__ == "__main__":
    main()
