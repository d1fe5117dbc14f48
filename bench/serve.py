"""The start of `vllm serve` until it is ready, with a model of 2 GB behind a line of 1 Gbit/s.

Three ways: from a cold mount; after a download by curl ×4 to the disk; and from a directory whose
files are in the page cache, the fastest possible start. Each run has new vLLM caches.
AXONFS_BENCH_VLLM is the vllm program; tools/bench provides it.
"""

from __future__ import annotations

import itertools
import os
import shutil
from functools import partial
from pathlib import Path

from axonfs.names import parse_spec
from axonfs.publish import publish
from bench.downloads import STREAMS, Wanted, curl_files
from bench.experiment import Answer, NotRunError, experiment
from bench.fixtures import cold_mount, scratch, settle
from bench.measure import Figures, ratio, rounds_of, seconds, summaries
from bench.network import GBIT, line
from bench.origin import Origin, serving
from bench.readers import sequential
from bench.tensors import wanted_of
from tests.vllm.serving import vllm_serving
from tools.make_llama import Size, make_llama

SPEC = "bench/served@1.0.0"
# No delay: the relay would need processor time beside the start of vLLM.
RTT = 0.0
# 2.0 GB in bfloat16.
MODEL = Size(hidden=2048, layers=22, intermediate=5632)
SHARD = 512 << 20
DOWNLOADED, LOCAL = 0.75, 1.1
_numbers = itertools.count()


def program() -> Path:
    named = os.environ.get("AXONFS_BENCH_VLLM")
    if not named:
        raise NotRunError("AXONFS_BENCH_VLLM is not set to a vllm program; tools/bench sets it")
    return Path(named)


def ready(model: Path, work: Path) -> float:
    """The seconds from the start of the command to its first healthy answer."""
    logs = work / f"vllm-{next(_numbers)}"
    logs.mkdir()
    with vllm_serving(program(), model, logs, dtype="auto") as server:
        took = server.ready_seconds
    shutil.rmtree(logs)
    return took


def from_mount(origin: Origin, work: Path) -> Figures:
    with cold_mount(origin.url, work) as mount:
        settle(0)
        return {"seconds": ready(mount.version(SPEC), work)}


def after_download(origin: Origin, work: Path, wanted: list[Wanted]) -> Figures:
    folder = work / f"download-{next(_numbers)}"
    folder.mkdir()
    settle(0)
    took = seconds(lambda: curl_files(origin, wanted, folder, STREAMS))
    start = ready(folder, work)
    shutil.rmtree(folder)
    return {"seconds": took + start, "download": took}


def from_directory(model: Path, work: Path) -> Figures:
    for path in model.iterdir():
        sequential(path)
    return {"seconds": ready(model, work)}


def main() -> None:
    with experiment("serve", __doc__, quick_rounds=1) as trial, scratch() as work:
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
            ways = {
                "mount": partial(from_mount, origin, work),
                "curl": partial(after_download, origin, work, wanted_of(origin, SPEC)),
                "local": partial(from_directory, model, work),
            }
            found = rounds_of(ways, trial.rounds)
        trial.figures |= summaries(found)
        mount = found["mount"]["seconds"]
        for against, theirs, target in (
            ("curl ×4, then from the disk", found["curl"], DOWNLOADED),
            ("a warm local start", found["local"], LOCAL),
        ):
            part = ratio(mount, theirs["seconds"])
            trial.answer(Answer("vllm serve ready, 2 GB, cold", against, part, "× time", target))


if __name__ == "__main__":
    main()
