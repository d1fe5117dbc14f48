"""Loads model directories with vLLM's own weight iterators, without an engine. Not a question.

Run by loaders.py with the Python of the vLLM environment, once: importing vLLM takes far longer
than a load. Takes one JSON object per line, {"folder": …, "loader": …}, and answers each with
{"seconds": …, "bytes": …, "checksum": …} or {"error": …}. Every tensor is copied, as a model's
weight loader does; the checksum is taken after the clock has stopped.
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


def load(folder: Path, loader: str) -> dict[str, Any]:
    import torch

    start = time.perf_counter()
    loaded = {}
    for name, tensor in tensors(folder, loader):
        loaded[name] = torch.empty_like(tensor, device="cpu").copy_(tensor)
    took = time.perf_counter() - start
    size = sum(tensor.nbytes for tensor in loaded.values())
    checksum = 0
    for name in sorted(loaded):
        raw = loaded[name].view(torch.uint8).numpy()
        checksum = zlib.crc32(raw, zlib.crc32(name.encode(), checksum))
    return {"seconds": took, "bytes": size, "checksum": checksum}


def main() -> None:
    # What vLLM and its progress bars print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = load(Path(asked["folder"]), asked["loader"])
        except Exception as exc:  # of any library: it is the caller's to report
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
