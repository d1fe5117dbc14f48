"""Loads model directories with vLLM's own weight iterators, without an engine. Not an experiment.

loaders.py runs it once, with the Python of the vLLM environment, because importing vLLM takes far
longer than a load. It reads one JSON object per line, {"folder": …, "loader": …}, and answers each
with {"seconds": …, "bytes": …, "checksum": …} or {"error": …}. Each tensor is copied into the
memory of the last tensor with its name, because new memory costs more than the copy, and a real
model has its parameters before the weights are loaded. The checksum is not part of the time.
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
    """Pairs of name and tensor, in the order of the loader."""
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
    raise ValueError(f"unknown loader: {loader}")


class Parameters:
    """The tensors of a model by name. They keep their memory from one load to the next."""

    def __init__(self) -> None:
        self._tensors: dict[str, Any] = {}

    def load(self, folder: Path, loader: str) -> dict[str, Any]:
        """Load a model; return seconds, bytes and checksum. New names also allocate memory."""
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
    # Keep the output of vLLM and its progress bars out of the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    parameters = Parameters()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = parameters.load(Path(request["folder"]), request["loader"])
        except Exception as exc:  # from any library; the caller reports it
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
