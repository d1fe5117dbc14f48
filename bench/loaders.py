"""All loaders of vLLM that work without a GPU: from the mount, cold and warm, and from the disk.

Warm is the third load through the same mount. The second load starts at once and waits until the
kernel has dropped the pages of the first, 0.2 s per GiB. All loads must give the same tensors: a
different checksum ends the experiment. The origin is on loopback, so `cold` shows the cost of work,
not of a network.
AXONFS_BENCH_VLLM is the vllm program, AXONFS_BENCH_RUNAI a directory with runai_model_streamer;
tools/bench provides both.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from axonfs.names import parse_spec
from axonfs.publish import publish
from bench.experiment import Answer, Experiment, NotRunError, experiment
from bench.fixtures import cold_mount, scratch, settle
from bench.measure import Figures, ratio, rounds_of, summaries
from bench.origin import Origin, serving
from bench.serve import program
from tools.make_llama import Size, make_llama

SPEC = "bench/loaded@1.0.0"
LOADERS = (
    "default", "eager", "prefetch", "multithread", "runai_streamer", "sharded_state",
)  # fmt: skip
TARGET = 1.05
SHARDS = 4


class Loading:
    """loading.py as a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def load(self, folder: Path, loader: str) -> dict[str, Any]:
        """
        Raises:
            NotRunError: the loader does not work here.
        """
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps({"folder": str(folder), "loader": loader}), file=self._process.stdin)
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line or '{"error": "the process has ended"}')
        if "error" in answer:
            raise NotRunError(f"{loader}: {answer['error'][:200]}")
        return answer


@contextmanager
def loading(work: Path) -> Iterator[Loading]:
    python = program().with_name("python")
    settings = {
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_CACHE_ROOT": str(work / "vllm"),
        "PYTHONPATH": os.environ.get("AXONFS_BENCH_RUNAI", ""),
    }
    with open(work / "loading.log", "w") as log:
        process = subprocess.Popen(
            [str(python), str(Path(__file__).with_name("loading.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | settings,
        )
    with process:
        try:
            yield Loading(process)
        finally:
            process.kill()


def through_mount(
    loads: Loading, origin: Origin, work: Path, loader: str, expected: int
) -> Figures:
    with cold_mount(origin.url, work) as mount:
        settle(3 * origin.bytes())
        found = [loads.load(mount.version(SPEC), loader) for _ in range(3)]
    if any(load["checksum"] != expected for load in found):
        raise RuntimeError(f"{loader} got different bytes through the mount")
    cold, second, warm = (load["seconds"] for load in found)
    return {"cold": cold, "second": second, "seconds": warm}


def compare(trial: Experiment, loads: Loading, origin: Origin, model: Path, loader: str) -> None:
    expected = loads.load(model, loader)["checksum"]
    ways = {
        "mount": lambda: through_mount(loads, origin, model.parent, loader, expected),
        "disk": lambda: {"seconds": loads.load(model, loader)["seconds"]},
    }
    found = rounds_of(ways, trial.rounds)
    warm = ratio(found["mount"]["seconds"], found["disk"]["seconds"])
    cold = ratio(found["mount"]["cold"], found["disk"]["seconds"])
    trial.figures[loader] = {**summaries(found), "warm": round(warm, 3), "cold": round(cold, 3)}
    against = "from the disk, warm"
    trial.answer(Answer(f"loader {loader}, warm", against, warm, "× time", TARGET))
    trial.answer(Answer(f"loader {loader}, cold", against, cold, "× time"))


def main() -> None:
    with (
        experiment("loaders", __doc__, quick_rounds=2) as trial,
        scratch() as work,
        loading(work) as loads,
    ):
        layers = trial.size(16, 44)
        size = Size(hidden=1024, layers=layers, intermediate=2816)
        model = work / "model"
        bytes_ = 2 * layers * 13_000_000
        make_llama(model, size, shard_bytes=bytes_ // SHARDS)
        publish(model, parse_spec(SPEC), work / "registry")
        with serving(work / "registry", work) as origin:
            origin.warm()
            trial.figures["bytes"] = loads.load(model, "default")["bytes"]
            for loader in LOADERS:
                try:
                    compare(trial, loads, origin, model, loader)
                except NotRunError as exc:
                    trial.not_run.append(str(exc))


if __name__ == "__main__":
    main()
