"""Loads model directories with the loaders' own code, without an engine. Not an experiment.

loaders.py runs it with the Python of the vLLM environment, once or once for each rank, because
importing vLLM takes far longer than a load. It reads one JSON object per line, {"folder": …,
"loader": …}, and answers each with {"began": …, "ended": …, "bytes": …, "checksum": …} or
{"error": …}; the times are those of time.monotonic. {"convert": FOLDER, "to": FOLDER, "format": …}
writes the same tensors in another format.

Each tensor is copied into the memory of the last tensor with its name, because new memory costs
more than the copy, and a real model has its parameters before the weights are loaded. The checksum
is not part of the time.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

THREADS = 8
# Tensor parallelism cuts these along their second dimension: a rank's part is a strip of each row.
_CUT_BY_COLUMN = ("o_proj", "down_proj")


def tensors(folder: Path, loader: str, rank: int = 0, ranks: int = 1) -> Any:
    """Pairs of name and tensor, in the order of the loader."""
    if loader.startswith("gguf"):
        from bench import llamacpp

        return llamacpp.tensors(sorted(folder.glob("*.gguf")), loader.removeprefix("gguf "))
    if loader.startswith("torch.load"):
        return _pickled(folder, loader.endswith("mmap"))
    files = [str(path) for path in folder.glob("*.safetensors")]
    if loader == "slices":
        return _slices(sorted(files), rank, ranks)
    if loader == "load_file":
        return _whole_files(sorted(files))
    return _of_vllm(files, loader)


def _of_vllm(files: list[str], loader: str) -> Any:
    from vllm.config.load import LoadConfig
    from vllm.model_executor.model_loader import weight_utils
    from vllm.model_executor.model_loader.sharded_state_loader import ShardedStateLoader

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


def _whole_files(files: list[str]) -> Iterator[tuple[str, Any]]:
    from safetensors.torch import load_file

    for file in files:
        yield from load_file(file).items()


def _pickled(folder: Path, mapped: bool) -> Iterator[tuple[str, Any]]:
    import torch

    for file in sorted(folder.glob("*.bin")):
        yield from torch.load(file, map_location="cpu", weights_only=True, mmap=mapped).items()


def _slices(files: list[str], rank: int, ranks: int) -> Iterator[tuple[str, Any]]:
    """A rank's part of every tensor of every file."""
    from safetensors import safe_open

    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                whole = opened.get_slice(name)
                yield name, _part(name, whole, rank, ranks)


def _part(name: str, whole: Any, rank: int, ranks: int) -> Any:
    shape = whole.get_shape()
    if len(shape) == 1:
        return whole[:]
    cut = any(part in name for part in _CUT_BY_COLUMN)
    step = shape[cut] // ranks
    chosen = slice(rank * step, (rank + 1) * step)
    return whole[:, chosen] if cut else whole[chosen]


class Parameters:
    """The tensors of a model by name. They keep their memory from one load to the next."""

    def __init__(self) -> None:
        self._tensors: dict[str, Any] = {}

    def load(
        self, folder: str, loader: str, rank: int = 0, ranks: int = 1, at: float = 0.0
    ) -> dict[str, Any]:
        """Load a model at the time `at`. New names also allocate memory."""
        for parameter in self._tensors.values():
            parameter.zero_()
        time.sleep(max(at - time.monotonic(), 0))
        began = time.monotonic()
        found = tensors(Path(folder), loader, rank, ranks)
        names = [self._put(name, tensor) for name, tensor in found]
        ended = time.monotonic()
        loaded = [self._tensors[name] for name in sorted(names)]
        return {
            "began": began,
            "ended": ended,
            "bytes": sum(tensor.nbytes for tensor in loaded),
            "checksum": checksum(sorted(names), loaded),
        }

    def _put(self, name: str, tensor: Any) -> str:
        if name not in self._tensors or self._tensors[name].shape != tensor.shape:
            self._tensors[name] = tensor.clone()
        self._tensors[name].copy_(tensor)
        return name


def checksum(names: list[str], loaded: list[Any]) -> int:
    import torch

    found = 0
    for name, tensor in zip(names, loaded, strict=True):
        found = zlib.crc32(tensor.view(torch.uint8).numpy(), zlib.crc32(name.encode(), found))
    return found


def convert(folder: str, to: str, kind: str) -> dict[str, Any]:
    """Write the tensors of each safetensors file in another format."""
    import torch
    from safetensors.torch import load_file

    Path(to).mkdir()
    for file in sorted(Path(folder).glob("*.safetensors")):
        held = load_file(file)
        path = Path(to, file.stem.replace("model", "pytorch_model") + f".{kind}")
        if kind == "bin":
            torch.save(held, path)
        else:
            from bench import llamacpp

            raw = {
                name: tensor.view(torch.uint8).numpy().tobytes() for name, tensor in held.items()
            }
            llamacpp.write(
                path, [(name, tuple(held[name].shape), raw[name]) for name in sorted(raw)]
            )
    return {}


def main() -> None:
    # Keep the output of vLLM and its progress bars out of the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    parameters = Parameters()
    for line in sys.stdin:
        request = json.loads(line)
        do = convert if "kind" in request else parameters.load
        try:
            answer = do(**request)
        except Exception as exc:  # from any library; the caller reports it
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
