"""The start of `vllm serve` until it is ready, with a model of 2 GB behind a line of 1 Gbit/s.

Three ways: from a cold mount; after a download by curl ×4 to the disk; and from a directory whose
files are in the page cache, the fastest possible start. Three cases compare the first with the
last: shards that are read in reverse order, tensor-parallel 2, and a second server that starts 5 s
after the first, where both have to be ready. Each run has new vLLM caches. A first start, which
reads vLLM's own files from the disk, is not counted. --quick compares the mount with the directory
only, without the cases.
AXONFS_BENCH_VLLM is the vllm program; tools/bench provides it.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from axonfs.names import parse_spec
from axonfs.publish import publish
from bench.downloads import STREAMS, Wanted, curl_files
from bench.experiment import Answer, Experiment, NotRunError, experiment
from bench.fixtures import cold_mount, scratch, settle
from bench.measure import Figures, Way, ratio, rounds_of, seconds, summaries
from bench.network import GBIT, line
from bench.origin import Origin, serving
from bench.readers import sequential
from bench.tensors import wanted_of
from tests.vllm.serving import Starting, vllm_starting
from tools.make_llama import Size, make_llama

SPEC = "bench/served@1.0.0"
# No delay: the relay would need processor time beside the start of vLLM.
RTT = 0.0
# 2.0 GB in bfloat16, in 8 shards.
MODEL = Size(hidden=2048, layers=22, intermediate=5632)
SHARD = 256 << 20
DOWNLOADED, LOCAL = 0.75, 1.1
ROUNDS = 3  # at least, and of the cases
_LATER = 5.0
_LOADED = re.compile(r"Loading weights took ([0-9.]+) seconds")
_numbers = itertools.count()

# vLLM reads shards in the order of their names. This plugin, which each of its processes loads,
# reverses the order.
_PLUGIN = {
    "reverse_shards.py": """
def reverse():
    from vllm.model_executor.model_loader import weight_utils
    weight_utils.sorted = lambda items, key=None: sorted(items, key=key, reverse=True)
""",
    "reverse_shards-1.dist-info/METADATA": "Name: reverse-shards\nVersion: 1\n",
    "reverse_shards-1.dist-info/entry_points.txt": (
        "[vllm.general_plugins]\nreverse = reverse_shards:reverse\n"
    ),
}


@dataclass(frozen=True)
class Start:
    """One way to start vLLM: more flags and variables, and how many servers."""

    flags: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    servers: int = 1

    def server(self, model: Path, logs: Path) -> AbstractContextManager[Starting]:
        return vllm_starting(
            program(), model, logs, dtype="auto", flags=self.flags, variables=self.variables
        )


PLAIN = Start()


def program() -> Path:
    named = os.environ.get("AXONFS_BENCH_VLLM")
    if not named:
        raise NotRunError("AXONFS_BENCH_VLLM is not set to a vllm program; tools/bench sets it")
    return Path(named)


def cases(work: Path) -> dict[str, Start]:
    """The starts that differ from a plain one."""
    plugins = work / "plugins"
    (plugins / "reverse_shards-1.dist-info").mkdir(parents=True)
    for name, text in _PLUGIN.items():
        (plugins / name).write_text(text)
    threads = {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    return {
        "shards in reverse": Start(variables={"PYTHONPATH": str(plugins)}),
        "tensor-parallel 2": Start(("--tensor-parallel-size", "2"), threads),
        "two servers, 5 s apart": Start(servers=2),
    }


def ready(model: Path, work: Path, start: Start = PLAIN) -> dict[str, float]:
    """The seconds from the first command until each server has given its first healthy answer, and
    the longest time that one of its processes took to load the weights."""
    logs = work / f"vllm-{next(_numbers)}"
    with ExitStack() as stack:
        began = time.perf_counter()
        servers = []
        for number in range(start.servers):
            time.sleep(_LATER if number else 0)
            own = logs / str(number)
            own.mkdir(parents=True)
            servers.append(stack.enter_context(start.server(model, own)))
        for server in servers:
            server.ready()
        took = time.perf_counter() - began
    texts = [path.read_text(errors="replace") for path in logs.glob("*/vllm.log")]
    loads = [float(found) for text in texts for found in _LOADED.findall(text)]
    shutil.rmtree(logs)
    return {"seconds": took, "weights": max(loads, default=0.0)}


def from_mount(origin: Origin, work: Path, start: Start) -> Figures:
    with cold_mount(origin.url, work) as mount:
        settle(0)
        found = ready(mount.version(SPEC), work, start)
        fetched, cpu = mount.status()["fetch"]["bytes"], mount.usage().cpu
        return {**found, "fetched": fetched, "mount's cpu": cpu}


def after_download(origin: Origin, work: Path, wanted: list[Wanted]) -> Figures:
    folder = work / f"download-{next(_numbers)}"
    folder.mkdir()
    settle(0)
    took = seconds(lambda: curl_files(origin, wanted, folder, STREAMS))
    found = ready(folder, work)
    shutil.rmtree(folder)
    return {**found, "seconds": took + found["seconds"], "download": took}


def from_directory(model: Path, work: Path, start: Start) -> Figures:
    for path in model.iterdir():
        sequential(path)
    return ready(model, work, start)


def compare(
    trial: Experiment, name: str, ways: Mapping[str, Way], rounds: int, targets: Mapping[str, float]
) -> None:
    """Answer how long a start from the mount takes against the ways that have a target."""
    found = rounds_of(ways, rounds)
    trial.figures[name] = summaries(found)
    against = {"curl": "curl ×4, then from the disk", "local": "a warm local start"}
    for way in filter(found.get, targets):
        part = ratio(found["mount"]["seconds"], found[way]["seconds"])
        trial.answer(Answer(name, against[way], part, "× time", targets[way]))


def main() -> None:
    with experiment("serve", __doc__) as trial, scratch() as work:
        program()
        model = work / "model"
        make_llama(model, MODEL, shard_bytes=SHARD)
        published = publish(model, parse_spec(SPEC), work / "registry")
        trial.figures["bytes"] = published.bytes
        with (
            line(GBIT, RTT) as limited,
            serving(work / "registry", work, line=limited) as origin,
        ):
            origin.warm()
            measure(trial, origin, model, work)


def measure(trial: Experiment, origin: Origin, model: Path, work: Path) -> None:
    def ways(start: Start) -> dict[str, Way]:
        return {
            "mount": partial(from_mount, origin, work, start),
            "local": partial(from_directory, model, work, start),
        }

    from_directory(model, work, PLAIN)
    plain, name = ways(PLAIN), "vllm serve ready, 2 GB, cold"
    if not trial.quick:
        plain["curl"] = partial(after_download, origin, work, wanted_of(origin, SPEC))
    rounds = max(ROUNDS, trial.rounds)
    compare(trial, name, plain, rounds, {"curl": DOWNLOADED, "local": LOCAL})
    for case, start in {} if trial.quick else cases(work).items():
        compare(trial, f"{name}, {case}", ways(start), ROUNDS, {"local": LOCAL})


if __name__ == "__main__":
    main()
