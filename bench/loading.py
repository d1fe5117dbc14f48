"""Loads model directories with vLLM's own weight iterators, without an engine. Not an experiment.

Run by loaders.py with the Python of the vLLM environment, once: importing vLLM takes far longer
than a load. Takes one JSON object per line, {"folder": …, "loader": …}, and answers each with
{"seconds": …, "bytes": …, "checksum": …} or {"error": …}. Every tensor is copied to where an
earlier one of its name was, as a model has its parameters before their weights come: memory that is
new to a process costs more than the copy. The checksum is taken after the clock has stopped.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from pathlib import Path
from typing import Any

THREADS = 8


def tensors(folder: Path, loader: str) -> Any:
    """Pairs of name and tensor, as that loader meets them."""
    from vllm.config.load import LoadConfig
    from vllm.model_executor.model_loader import weight_utils
    from vllm.model_executor.model_loader.sharded_state_loader import ShardedStateLoader

    files = [str(path) for path in folder.glob("*.safetensors")]
    if loader == "default":
        return weight_utils.safetensors_weights_iterator(files, False)
    if loader in ("lazy", "eager", "prefetch"):
        return weight_utils.safetensors_weights_iterator(files, False, loader)
    if loader == "multithread":
        iterate = weight_utils.multi_thread_safetensors_weights_iterator
        return iterate(files, False, max_workers=THREADS)
    if loader == "runai_streamer":
        return weight_utils.runai_safetensors_weights_iterator(files, False)
    if loader == "sharded_state":
        config = LoadConfig(load_format="sharded_state")
        return ShardedStateLoader(config).iterate_over_files(files)
    raise ValueError(f"no loader {loader}")


class Parameters:
    """The tensors of a model, by name, in memory that they keep from one load to the next."""

    def __init__(self) -> None:
        self._tensors: dict[str, Any] = {}

    def load(self, folder: Path, loader: str) -> dict[str, Any]:
        """What a load took and what it brought; the first of a name also takes its memory."""
        for parameter in self._tensors.values():
            parameter.zero_()
        start = time.perf_counter()
        names = [self._put(name, tensor) for name, tensor in tensors(folder, loader)]
        took = time.perf_counter() - start
        loaded = [self._tensors[name] for name in sorted(names)]
        return {
            "seconds": took,
            "bytes": sum(tensor.nbytes for tensor in loaded),
            "checksum": checksum(sorted(names), loaded),
        }

    def _put(self, name: str, tensor: Any) -> str:
        if name not in self._tensors:
            self._tensors[name] = tensor.clone()
        self._tensors[name].copy_(tensor)
        return name


def checksum(names: list[str], loaded: list[Any]) -> int:
    import torch

    found = 0
    for name, tensor in zip(names, loaded, strict=True):
        found = zlib.crc32(tensor.view(torch.uint8).numpy(), zlib.crc32(name.encode(), found))
    return found


def main() -> None:
    # What vLLM and its progress bars print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    parameters = Parameters()
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = parameters.load(Path(asked["folder"]), asked["loader"])
        except Exception as exc:  # of any library: it is the caller's to report
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
