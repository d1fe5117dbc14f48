"""GGUF files, written as llama.cpp expects them and read with the system calls that it makes.

llama.cpp itself takes minutes to compile, so it is not run. It opens a file twice, first for its
head (gguf_init_from_file) and then for the tensors, in one of three ways (src/llama-mmap.cpp and
load_all_data in src/llama-model-loader.cpp):

- mmap: POSIX_FADV_SEQUENTIAL, a shared mapping of each file with MAP_POPULATE, POSIX_MADV_WILLNEED.
- read (--no-mmap): seeks to a tensor and reads it, in the order of the model's graph, which is not
  the order of the file.
- direct (--direct-io): in the same order, with O_DIRECT, the whole pages that hold a tensor.

loading.py imports this with the Python of the vLLM environment.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ALIGNMENT = 32
PAGE = 4096
BF16 = 30
_VERSION, _STRING = 3, 8
_ARCHITECTURE = "general.architecture"
# The order in which llama.cpp makes the tensors of a Llama.
_OUTSIDE = ("embed_tokens", "model.norm", "lm_head")
_IN_A_LAYER = (
    "input_layernorm", "q_proj", "k_proj", "v_proj", "o_proj",
    "post_attention_layernorm", "gate_proj", "down_proj", "up_proj",
)  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """A bfloat16 tensor in a file."""

    name: str
    shape: tuple[int, ...]
    path: Path
    offset: int

    @property
    def size(self) -> int:
        size = 2
        for length in self.shape:
            size *= length
        return size


def write(path: Path, tensors: Iterable[tuple[str, tuple[int, ...], bytes]]) -> None:
    """Write bfloat16 tensors in this order."""
    chosen = list(tensors)
    head = b"GGUF" + struct.pack("<IQQ", _VERSION, len(chosen), 1)
    head += _text(_ARCHITECTURE) + struct.pack("<I", _STRING) + _text("llama")
    offset = 0
    for name, shape, data in chosen:
        sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        head += _text(name) + sizes + struct.pack("<IQ", BF16, offset)
        offset += len(data) + -len(data) % ALIGNMENT
    with open(path, "wb") as file:
        file.write(head + bytes(-len(head) % ALIGNMENT))
        for _, _, data in chosen:
            file.write(data + bytes(-len(data) % ALIGNMENT))


def tensors(paths: Iterable[Path], way: str) -> Iterator[tuple[str, Any]]:
    """Pairs of name and tensor, in the order of llama.cpp."""
    stored = sorted((one for path in paths for one in _table(path)), key=_order)
    read = {"mmap": _mapped, "read": _read, "direct": _direct}[way](stored)
    import torch

    for one, data in zip(stored, read, strict=True):
        yield one.name, torch.frombuffer(data, dtype=torch.bfloat16).view(one.shape)


def _table(path: Path) -> list[Stored]:
    """The tensors of one file, read like stdio does: 4 KiB at a time."""
    with _buffered(path) as file:
        _, _, count, _ = struct.unpack("<IIQQ", file.read(24))
        _string(file), file.read(4), _string(file)
        heads = [_head(file) for _ in range(count)]
        start = file.tell() + -file.tell() % ALIGNMENT
    return [Stored(name, shape, path, start + offset) for name, shape, offset in heads]


def _buffered(path: Path) -> io.BufferedReader:
    return io.BufferedReader(io.FileIO(path), PAGE)


def _head(file: io.BufferedReader) -> tuple[str, tuple[int, ...], int]:
    name = _string(file)
    (dimensions,) = struct.unpack("<I", file.read(4))
    sizes = struct.unpack(f"<{dimensions}Q", file.read(8 * dimensions))
    _, offset = struct.unpack("<IQ", file.read(12))
    return name, tuple(reversed(sizes)), offset


def _string(file: io.BufferedReader) -> str:
    return file.read(struct.unpack("<Q", file.read(8))[0]).decode()


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _order(stored: Stored) -> tuple[int, int]:
    if layer := re.search(r"layers\.(\d+)\.(?:\w+\.)?(\w+)\.weight", stored.name):
        return int(layer[1]), _IN_A_LAYER.index(layer[2])
    return -1, next(place for place, part in enumerate(_OUTSIDE) if part in stored.name)


def _mapped(stored: list[Stored]) -> Iterator[memoryview]:
    mappings = {}
    for path in sorted({one.path for one in stored}):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
            mapping = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ)
            mapping.madvise(mmap.MADV_WILLNEED)
            mappings[path] = mapping
    for one in stored:
        yield memoryview(mappings[one.path])[one.offset : one.offset + one.size]


def _read(stored: list[Stored]) -> Iterator[memoryview]:
    with contextlib.ExitStack() as stack:
        files = {
            path: stack.enter_context(_buffered(path))
            for path in sorted({one.path for one in stored})
        }
        memory = memoryview(bytearray(max(one.size for one in stored)))
        for one in stored:
            files[one.path].seek(one.offset)
            files[one.path].readinto(memory[: one.size])
            yield memory[: one.size]


def _direct(stored: list[Stored]) -> Iterator[memoryview]:
    with contextlib.ExitStack() as stack:
        files = {}
        for path in sorted({one.path for one in stored}):
            files[path] = os.open(path, os.O_RDONLY | os.O_DIRECT)
            stack.callback(os.close, files[path])
        for one in stored:
            before = one.offset % PAGE
            whole = mmap.mmap(-1, before + one.size + -(before + one.size) % PAGE)
            got = os.preadv(files[one.path], [whole], one.offset - before)
            assert got >= before + one.size
            yield memoryview(whole)[before : before + one.size]
