"""Read every tensor of a version with safetensors, cold, on a limited line; or download it first.

Measures the command `python tools/read_tensors.py DIR` with its start: the mount may fetch while
Python starts. The line has 1 Gbit/s and a round trip of 20 ms.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from axonfs.formats.manifest import parse_manifest
from bench.downloads import STREAMS, Wanted, aria2_files, curl_files
from bench.experiment import Answer, experiment
from bench.fixtures import GIB, MIB, cold_mount, publish_model, scratch, settle
from bench.measure import Figures, ratio, rounds_of, seconds, summaries
from bench.network import GBIT, line
from bench.origin import Origin, serving

SPEC = "bench/tensors@1.0.0"
RTT, SHARD, TENSOR = 0.02, 64 * MIB, 4 * MIB
TARGET = 0.8
READ_TENSORS = Path(__file__).parents[1] / "tools/read_tensors.py"
_numbers = itertools.count()


def write_tensors(folder: Path, size: int) -> Path:
    """Write shards of float32 tensors, `size` bytes in total."""
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}\n')
    generator = np.random.default_rng(0)
    for shard in range(size // SHARD):
        tensors = {
            f"layers.{shard}.{number}": generator.random(TENSOR // 4, dtype=np.float32)
            for number in range(SHARD // TENSOR)
        }
        save_file(tensors, folder / f"model-{shard:05}.safetensors")
    return folder


def read_all(folder: Path) -> None:
    command = [sys.executable, str(READ_TENSORS), str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def through_mount(origin: Origin, work: Path, size: int) -> Figures:
    with cold_mount(origin.url, work) as mount:
        settle(2 * size)
        return {"seconds": seconds(lambda: read_all(mount.version(SPEC)))}


def downloaded(work: Path, size: int, download: Callable[[Path], None]) -> Figures:
    folder = work / f"download-{next(_numbers)}"
    folder.mkdir()
    settle(2 * size)
    took = seconds(lambda: download(folder))
    read = seconds(lambda: read_all(folder))
    shutil.rmtree(folder)
    return {"seconds": took + read, "download": took, "read": read}


def wanted_of(origin: Origin, spec: str) -> list[Wanted]:
    """The files of a version to download, with their own names."""
    manifest = origin.root / "api/v1/models" / spec.replace("@", "/") / "manifest.yaml"
    return [
        Wanted(f"{origin.url}/objects/sha256/{file.digest[:2]}/{file.digest}", file.size, file.path)
        for file in parse_manifest(manifest.read_bytes()).files
    ]


def main() -> None:
    with experiment("tensors", __doc__, quick_rounds=2) as trial, scratch() as work:
        size = trial.size(256 * MIB, GIB)
        trial.figures["bytes"] = size
        publish_model(write_tensors(work / "model", size), SPEC, work / "registry")
        with (
            line(GBIT, RTT) as limited,
            serving(work / "registry", work, line=limited) as origin,
        ):
            origin.warm()
            wanted = wanted_of(origin, SPEC)
            ways = {
                "curl ×4": lambda folder: curl_files(origin, wanted, folder, STREAMS),
                "aria2c -x8": lambda folder: aria2_files(wanted, folder),
            }
            runs = {name: partial(downloaded, work, size, way) for name, way in ways.items()}
            mount = partial(through_mount, origin, work, size)
            found = rounds_of({"mount": mount, **runs}, trial.rounds)
        trial.figures |= summaries(found)
        for peer in ways:
            part = ratio(found["mount"]["seconds"], found[peer]["seconds"])
            against = f"{peer}, then the same"
            trial.answer(Answer("safe_open of all tensors, cold", against, part, "× time", TARGET))


if __name__ == "__main__":
    main()
