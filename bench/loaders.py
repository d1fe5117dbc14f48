"""Loaders of models: from the mount, warm against the disk, and cold against one sequential read.

Warm is the third load of a loader of vLLM through the same mount, on loopback. The second load
starts at once and waits until the kernel has dropped the pages of the first, 0.2 s per GiB.

Cold is the first load on a limited line: 1 Gbit/s and 10 Gbit/s, with round trips of 1, 20 and
80 ms. Its time is compared with one sequential read of the same files through a mount with an empty
cache on the same line, in the same round. vLLM reads config.json long before the weights; here
its loaders read it at the moment when they start. The others open the weights alone. The answer is
the worst of the lines of one rate; the figures have all. A full run takes some 40 minutes. With
--quick, one line is asked in one round.

All loads must give the same tensors: a different checksum ends the experiment. AXONFS_BENCH_VLLM is
the vllm program, AXONFS_BENCH_RUNAI a directory with runai_model_streamer; tools/bench has both.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from axonfs.names import parse_spec
from axonfs.publish import publish
from bench.experiment import Answer, Experiment, NotRunError, experiment
from bench.fixtures import cold_mount, scratch, settle
from bench.measure import Figures, digits, ratio, rounds_of, seconds, summaries
from bench.network import GBIT, line
from bench.origin import Origin, serving
from bench.readers import dd
from bench.serve import program
from tools.make_llama import Size, make_llama


@dataclass(frozen=True)
class Loader:
    """A way to load a model, as loading.py knows it; `kind` is the suffix of the files."""

    name: str
    kind: str = "safetensors"
    ranks: int = 1

    @property
    def of_vllm(self) -> bool:
        return self in OF_VLLM

    @property
    def spec(self) -> str:
        return SPEC.format(self.kind)


SPEC = "bench/{}@1.0.0"
KINDS = ("safetensors", "bin", "gguf")
OF_VLLM = (
    Loader("default"),
    Loader("eager"),
    Loader("prefetch"),
    Loader("multithread"),
    Loader("sharded_state"),
    Loader("runai_streamer"),
)
LOADERS = (
    *OF_VLLM,
    Loader("load_file"),
    Loader("torch.load", "bin"),
    Loader("torch.load mmap", "bin"),
    Loader("gguf mmap", "gguf"),
    Loader("gguf read", "gguf"),
    Loader("gguf direct", "gguf"),
    Loader("slices of 2", ranks=2),
    Loader("slices of 8", ranks=8),
)
WARM_TARGET, COLD_TARGET = 1.05, 1.1
SHARDS = 4
LAYER_BYTES = 90_200_000
LINES = tuple((rate, trip) for rate in (GBIT, 10 * GBIT) for trip in (0.001, 0.02, 0.08))
# At 10 Gbit/s two cores are the limit, and more rounds do not change that.
COLD_ROUNDS = {GBIT: 3, 10 * GBIT: 2}
QUICK_LINES = ((GBIT, 0.02),)
# Until all ranks have cleared their tensors and start together.
CLEARED_SECONDS = 1.0

Loaded = dict[str, Any]


class Loading:
    """loading.py as processes: one for each rank, started when it is needed."""

    def __init__(self, work: Path, stack: ExitStack) -> None:
        self._work = work
        self._stack = stack
        self._processes: list[subprocess.Popen[str]] = []

    def load(self, folder: Path, loader: Loader) -> Loaded:
        """Seconds, bytes, and the checksums of the ranks.

        Raises:
            NotRunError: the loader does not work here.
        """
        request: dict[str, Any] = {
            "folder": str(folder),
            "loader": loader.name.partition(" of ")[0],
        }
        ranks = range(loader.ranks)
        if loader.ranks > 1:
            at = time.monotonic() + CLEARED_SECONDS
            requests = [request | {"rank": rank, "ranks": loader.ranks, "at": at} for rank in ranks]
        else:
            requests = [request]
        found = self._ask(requests, loader.name)
        return {
            "seconds": max(one["ended"] for one in found) - min(one["began"] for one in found),
            "bytes": sum(one["bytes"] for one in found),
            "checksums": [one["checksum"] for one in found],
        }

    def convert(self, folder: Path, to: Path, kind: str) -> None:
        """Write the tensors of `folder` in another format."""
        self._ask([{"folder": str(folder), "to": str(to), "kind": kind}], kind)

    def _ask(self, requests: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
        while len(self._processes) < len(requests):
            self._processes.append(self._start())
        asked = self._processes[: len(requests)]
        for process, request in zip(asked, requests, strict=True):
            assert process.stdin
            print(json.dumps(request), file=process.stdin, flush=True)
        return [_answer(process, what) for process in asked]

    def _start(self) -> subprocess.Popen[str]:
        with open(self._work / f"loading-{len(self._processes)}.log", "w") as log:
            process = subprocess.Popen(
                [str(program().with_name("python")), str(Path(__file__).with_name("loading.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | self._settings(),
            )
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        return process

    def _settings(self) -> dict[str, str]:
        checkout = str(Path(__file__).parents[1])
        return {
            "VLLM_TARGET_DEVICE": "cpu",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",  # as vLLM sets it for each rank; else eight ranks spin
            "VLLM_CACHE_ROOT": str(self._work / "vllm"),
            "PYTHONPATH": f"{os.environ.get('AXONFS_BENCH_RUNAI', '')}:{checkout}",
        }


def _answer(process: subprocess.Popen[str], what: str) -> dict[str, Any]:
    assert process.stdout
    line = process.stdout.readline()
    answer: dict[str, Any] = json.loads(line or '{"error": "the process has ended"}')
    if "error" in answer:
        raise NotRunError(f"{what}: {answer['error'][:200]}")
    return answer


@dataclass(frozen=True)
class Models:
    """The models as folders on the disk, and what loading them gives."""

    loads: Loading
    work: Path
    expected: dict[Loader, list[int]]

    def folder(self, kind: str) -> Path:
        return self.work / kind

    def from_disk(self, loader: Loader) -> Figures:
        return {"seconds": self.loads.load(self.folder(loader.kind), loader)["seconds"]}

    def load(self, folder: Path, loader: Loader) -> float:
        """The seconds of a load through the mount."""
        found = self.loads.load(folder, loader)
        if found["checksums"] != self.expected[loader]:
            raise RuntimeError(f"{loader.name} got different bytes through the mount")
        return float(found["seconds"])


@contextmanager
def models(trial: Experiment, work: Path) -> Iterator[Models]:
    """One model in every format; every loader has loaded it once, so that its memory is there."""
    with ExitStack() as stack:
        loads = Loading(work, stack)
        layers = trial.size(5, 8)
        size = Size(hidden=2048, layers=layers, intermediate=5632)
        make_llama(work / KINDS[0], size, shard_bytes=layers * LAYER_BYTES // SHARDS)
        for kind in KINDS[1:]:
            loads.convert(work / KINDS[0], work / kind, kind)
        for kind in KINDS:
            publish(work / kind, parse_spec(SPEC.format(kind)), work / "registry")
        expected, own = {}, trial.figures.setdefault("from the disk, warm", {})
        for loader in LOADERS:
            try:
                loaded = loads.load(work / loader.kind, loader)
                expected[loader] = loaded["checksums"]
                trial.figures.setdefault("bytes", loaded["bytes"])
                own[loader.name] = digits(loads.load(work / loader.kind, loader)["seconds"])
            except NotRunError as exc:
                trial.not_run.append(str(exc))
        yield Models(loads, work, expected)


def three_times(of: Models, origin: Origin, loader: Loader) -> Figures:
    with cold_mount(origin.url, of.work) as mount:
        settle(origin.bytes())
        cold, second, warm = (of.load(mount.version(loader.spec), loader) for _ in range(3))
    return {"cold": cold, "second": second, "seconds": warm}


def warm(trial: Experiment, of: Models, origin: Origin, loader: Loader) -> None:
    ways = {
        "mount": lambda: three_times(of, origin, loader),
        "disk": lambda: of.from_disk(loader),
    }
    found = rounds_of(ways, trial.rounds)
    value = ratio(found["mount"]["seconds"], found["disk"]["seconds"])
    trial.figures[loader.name] = {**summaries(found), "warm": round(value, 3)}
    against = "from the disk, warm"
    trial.answer(Answer(f"loader {loader.name}, warm", against, value, "× time", WARM_TARGET))


def once(of: Models, origin: Origin, loader: Loader) -> Figures:
    """The first load through a new mount."""
    with cold_mount(origin.url, of.work) as mount:
        folder = mount.version(loader.spec)
        settle(origin.bytes() // len(KINDS))
        if loader.of_vllm:
            (folder / "config.json").read_bytes()
        return {"seconds": of.load(folder, loader)}


def sequential(of: Models, origin: Origin, kind: str) -> Figures:
    """One read of the weights through a new mount, file by file."""
    with cold_mount(origin.url, of.work) as mount:
        files = sorted(mount.version(SPEC.format(kind)).glob(f"*.{kind}"))
        settle(origin.bytes() // len(KINDS))
        return {"seconds": sum(seconds(partial(dd, file)) for file in files)}


def cold(trial: Experiment, of: Models, rate: int, round_trip: float) -> dict[Loader, float]:
    """Each loader's time on one line, as a multiple of the sequential read's."""
    with (
        line(rate, round_trip) as limited,
        serving(of.work / "registry", of.work, line=limited) as origin,
    ):
        origin.warm()
        ways = {kind: partial(sequential, of, origin, kind) for kind in KINDS}
        ways |= {loader.name: partial(once, of, origin, loader) for loader in of.expected}
        found = rounds_of(ways, trial.size(1, COLD_ROUNDS[rate]))
    ratios = {
        loader: ratio(found[loader.name]["seconds"], found[loader.kind]["seconds"])
        for loader in of.expected
    }
    rounded = {loader.name: round(value, 3) for loader, value in ratios.items()}
    trial.figures[_named(rate, round_trip)] = {**summaries(found), "ratios": rounded}
    print(f"    {_named(rate, round_trip)}: {rounded}")
    return ratios


def _named(rate: int, round_trip: float) -> str:
    return f"{rate // GBIT} Gbit/s, {round_trip * 1000:.0f} ms"


def cold_on_lines(trial: Experiment, of: Models) -> None:
    lines = QUICK_LINES if trial.quick else LINES
    ratios = {one: cold(trial, of, *one) for one in lines}
    for rate in sorted({rate for rate, _ in lines}):
        for loader in of.expected:
            of_rate = {trip: ratios[rate, trip][loader] for at, trip in lines if at == rate}
            trip = max(of_rate, key=lambda trip: of_rate[trip])
            what = f"loader {loader.name}, cold, {rate // GBIT} Gbit/s"
            against = f"one sequential cold read, {trip * 1000:.0f} ms"
            trial.answer(Answer(what, against, of_rate[trip], "× time", COLD_TARGET))


def main() -> None:
    with (
        experiment("loaders", __doc__, quick_rounds=2) as trial,
        scratch() as work,
        models(trial, work) as of,
    ):
        with serving(work / "registry", work) as origin:
            origin.warm()
            for loader in (loader for loader in OF_VLLM if loader in of.expected):
                warm(trial, of, origin, loader)
        cold_on_lines(trial, of)


if __name__ == "__main__":
    main()
