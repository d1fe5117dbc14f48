"""Load every tensor of a model into a GPU with safetensors: cold, warm, and from a directory.

The registry is on loopback. The directory's files are in the page cache, as are those of the warm
mount. The time is that of the loads, without the start of Python, torch and the GPU.
AXONFS_BENCH_TORCH is a Python that has safetensors and a torch with CUDA; the default is `python3`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
from functools import partial
from pathlib import Path

from axonfs.names import parse_spec
from axonfs.publish import publish
from bench.experiment import Answer, NotRunError, experiment
from bench.fixtures import GIB, cold_mount, scratch, settle
from bench.measure import Figures, ratio, rounds_of, summaries
from bench.origin import Origin, serving
from bench.readers import sequential
from bench.tensors import write_tensors

SPEC = "bench/gpu@1.0.0"
WARM = 1.1  # × the time from the directory
WHAT = "safetensors into a GPU"

# Prints the seconds of the loads. Each tensor goes when the next one comes.
_LOAD = """
import pathlib, sys, time, torch
from safetensors.torch import load_file
torch.zeros(1, device="cuda")
files = sorted(pathlib.Path(sys.argv[1]).glob("*.safetensors"))
began = time.perf_counter()
for file in files:
    loaded = load_file(file, device="cuda")
torch.cuda.synchronize()
print(time.perf_counter() - began)
"""


def python() -> str:
    """The Python that loads."""
    named = os.environ.get("AXONFS_BENCH_TORCH", "python3")
    test = "import torch, safetensors, sys; sys.exit(not torch.cuda.is_available())"
    try:
        subprocess.run([named, "-c", test], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise NotRunError(f"{named} has no torch with CUDA; set AXONFS_BENCH_TORCH") from exc
    return named


def load(program: str, folder: Path) -> Figures:
    command = [program, "-c", _LOAD, str(folder)]
    return {"seconds": float(subprocess.run(command, check=True, capture_output=True).stdout)}


def cold(program: str, origin: Origin, work: Path) -> Figures:
    with cold_mount(origin.url, work) as mount:
        settle(2 * origin.bytes())
        return load(program, mount.version(SPEC))


def in_memory(program: str, folder: Path) -> Figures:
    for path in folder.glob("*.safetensors"):
        sequential(path)
    return load(program, folder)


def main() -> None:
    with experiment("gpu", __doc__, quick_rounds=1) as trial, scratch() as work:
        program, model = python(), work / "model"
        write_tensors(model, trial.size(2 * GIB, 8 * GIB))
        size = trial.figures["bytes"] = publish(model, parse_spec(SPEC), work / "registry").bytes
        with serving(work / "registry", work) as origin, cold_mount(origin.url, work) as mount:
            origin.warm()
            ways = {
                "cold": partial(cold, program, origin, work),
                "warm": partial(in_memory, program, mount.version(SPEC)),
                "local": partial(in_memory, program, model),
            }
            found = rounds_of(ways, trial.rounds)
            trial.figures |= summaries(found)
            times = {name: found[name]["seconds"] for name in ways}
            rate = size / GIB / statistics.median(times["cold"])
            part = ratio(times["warm"], times["local"])
            trial.answer(Answer(f"{WHAT}, cold", "–", rate, "GiB/s"))
            trial.answer(Answer(f"{WHAT}, warm", "a directory", part, "× time", WARM))


if __name__ == "__main__":
    main()
