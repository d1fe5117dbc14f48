"""The share of a process's processor time that it spends under the lock of its interpreter (GIL).

sampler.py takes the samples. This module starts it, and tells it where CPython keeps the GIL: in
its static state, `_PyRuntime`, at a place that differs between versions. The place is found by
watching a child of this interpreter that holds and releases the GIL when told. So the measured
process must run the same interpreter as the bench.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

from bench.experiment import NotRunError
from bench.sampler import last_holder

# More than the sizes of `_PyRuntime` and of the state of a thread.
RUNTIME, STATE = 1 << 20, 4096
QUIET_SECONDS = 0.05
_CHECKOUT = Path(__file__).parents[1]

# A byte of input ends each phase: the main thread holds the GIL, another thread holds it, none
# does. Functions of a PyDLL keep the GIL, so it is held from the byte of output to that of input.
_HOLDER = """
import ctypes, os, threading
libc, byte = ctypes.PyDLL(None), ctypes.create_string_buffer(b".")
def hold():
    libc.write(1, byte, 1)
    libc.read(0, byte, 1)
while True:
    hold()
    other = threading.Thread(target=hold)
    other.start()
    other.join()
    os.write(1, b".")
    os.read(0, 1)
"""
PHASES = (1, 1, 0)


@dataclass
class Share:
    """The part of the processor time that was spent under the GIL; set at the end of `watched`."""

    value: float = 0.0


@contextlib.contextmanager
def watched(pid: int) -> Iterator[Share]:
    """Measure the share of the processor time that a process spends under its GIL in the block.

    Raises:
        NotRunError: this user cannot sample the processors of this machine.
    """
    share, place, pipe = Share(), gil(), subprocess.PIPE
    numbers = (pid, _runtime(pid) + place.locked, place.thread)
    command = [sys.executable, "-m", "bench.sampler", *map(str, numbers)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=_CHECKOUT) as sampler:
        told, why = cast("BinaryIO", sampler.stdout), cast("BinaryIO", sampler.stderr)
        if told.readline() != b"ready\n":
            last = why.read().decode().strip().rpartition("\n")[2]
            raise NotRunError(f"cannot sample the processors: {last}")
        try:
            yield share
        finally:
            cast("BinaryIO", sampler.stdin).close()
            share.value = float(told.readline())


@dataclass(frozen=True)
class Gil:
    """Where the interpreter keeps its GIL.

    `locked` is the distance of the word that is 1 while it is held from `_PyRuntime`. The pointer
    to the state of the last holder lies before it. `thread` is the place of the kernel's id of a
    thread in its state.
    """

    locked: int
    thread: int


@functools.cache
def gil() -> Gil:
    """The place of the GIL in every process that runs this interpreter.

    Raises:
        NotRunError: the interpreter has no GIL, or keeps it in an unknown way.
    """
    words, states = [], []
    with _child() as child:
        for held in PHASES * 3:
            with _phase(child) as memory:
                words.append((held, os.pread(memory, RUNTIME, _runtime(child.pid))))
        locked = _place("i", words)
        for _ in PHASES:
            with _phase(child) as memory:
                state, _held = last_holder(memory, _runtime(child.pid) + locked)
                newest = max(int(name) for name in os.listdir(f"/proc/{child.pid}/task"))
                states.append((newest, os.pread(memory, STATE, state)))
    return Gil(locked, _place("l", states[:-1]))


@contextlib.contextmanager
def _child() -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _HOLDER], stdin=pipe, stdout=pipe) as child:
        try:
            yield child
        finally:
            child.kill()


@contextlib.contextmanager
def _phase(child: subprocess.Popen[bytes]) -> Iterator[int]:
    """The next phase of the child, which ends with the block; yields its memory, open."""
    os.read(cast("BinaryIO", child.stdout).fileno(), 1)
    time.sleep(QUIET_SECONDS)  # the last phase tells before it releases the GIL
    with open(f"/proc/{child.pid}/mem", "rb", buffering=0) as memory:
        yield memory.fileno()
    os.write(cast("BinaryIO", child.stdin).fileno(), b".")


def _place(kind: Literal["i", "l"], seen: list[tuple[int, bytes]]) -> int:
    """The only place at which each memory has its value, as a number of this format."""
    size = struct.calcsize(kind)
    common = min(len(memory) for _, memory in seen) // size
    columns = [memoryview(memory)[: common * size].cast(kind) for _, memory in seen]
    values = [value for value, _ in seen]
    places = [
        place
        for place in range(common)
        if all(column[place] == value for column, value in zip(columns, values, strict=True))
    ]
    if len(places) != 1:
        raise NotRunError(f"cannot find the GIL of {sys.executable}: {len(places)} places fit")
    return places[0] * size


def _runtime(pid: int) -> int:
    """The address of `_PyRuntime` in a process that runs this interpreter."""
    here = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
    files: dict[str, int] = {}
    path = ""
    for start, stop, name in _mappings(os.getpid()):
        path = name or path  # zeroed data, without a name, follows that of its file
        files.setdefault(path, start)
        if start <= here < stop:
            there = next(at for at, _, name in _mappings(pid) if name == path)
            return there + here - files[path]
    raise AssertionError("the symbol is in no mapping")


def _mappings(pid: int) -> Iterator[tuple[int, int, str]]:
    """Start, stop and file of every mapping of a process, in the order of their addresses."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, _, _, _, _, *path = line.split(maxsplit=5)
        start, stop = (int(place, 16) for place in span.split("-"))
        yield start, stop, path[0] if path else ""
