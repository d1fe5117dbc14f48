"""The bench's question `scale`: its arithmetic, its table rows, and the sampler of the GIL."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from bench.experiment import Experiment, NotRunError
from bench.fixtures import GIB, threads_of
from bench.gil import watched
from bench.readers import together
from bench.scale import COLD, JUDGED, WARM, answer, ceiling, costs

# One thread spins in Python, and one hashes without the GIL. Says their processor times.
PROGRAM = """
import hashlib, threading, time
input()
end, data, used = time.monotonic() + 0.7, bytes(4 << 20), {}
def hashing():
    while time.monotonic() < end:
        hashlib.sha256(data)
def spinning():
    while time.monotonic() < end:
        sum(range(1000))
        time.sleep(0.0005)
def run(work):
    work()
    used[work.__name__] = time.thread_time()
threads = [threading.Thread(target=run, args=(work,)) for work in (hashing, spinning)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(used["spinning"] / sum(used.values()), flush=True)
input()
"""


def test_costs_are_per_gib_of_what_each_thread_used_since_the_beginning() -> None:
    before, after = {10: 5.0, 11: 1.0}, {10: 5.2, 11: 1.6, 12: 0.4}
    found = costs(10, before, after, 0.25, 2 * GIB)
    expected = {"main thread": 0.1, "busiest thread": 0.3, "all threads": 0.6}
    assert found == pytest.approx({**expected, "under the GIL": 0.15})


def test_ceiling_is_the_smaller_of_the_two_bounds() -> None:
    assert ceiling({"busiest thread": 0.5, "under the GIL": 0.2}) == 2
    assert ceiling({"busiest thread": 0.1, "under the GIL": 0.2}) == 5


def test_targets_are_for_four_readers() -> None:
    medians = {"main thread": 0.5, "busiest thread": 0.5, "under the GIL": 0.1, "all threads": 1.3}
    trial = Experiment("scale", quick=True, rounds=1)
    for way, readers in ((COLD, 1), (COLD, JUDGED), (WARM, JUDGED)):
        answer(trial, way, readers, medians)
    assert len(trial.answers) == 15
    judged = [(said.what, said.met) for said in trial.answers if said.target]
    assert judged == [
        ("main thread, cold read, 4 readers", False),
        ("busiest thread, cold read, 4 readers", False),
        ("under the GIL, cold read, 4 readers", True),
        ("all threads, cold read, 4 readers", False),
        ("main thread, warm read without passthrough, 4 readers", False),
        ("busiest thread, warm read without passthrough, 4 readers", False),
        ("under the GIL, warm read without passthrough, 4 readers", True),
    ]


def test_sampler_finds_the_share_of_the_time_under_the_gil() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=pipe, stdout=pipe) as program:
        given, told = cast("BinaryIO", program.stdin), cast("BinaryIO", program.stdout)
        try:
            with watched(program.pid) as share:
                given.write(b"\n")
                given.flush()
                known = float(told.readline())
        except NotRunError as exc:
            pytest.skip(str(exc))
        finally:
            given.close()
    assert 0 < known < 1
    assert share.value == pytest.approx(known, abs=0.15)


def test_processor_time_is_of_each_thread() -> None:
    done = threading.Event()
    idle = threading.Thread(target=done.wait)
    idle.start()
    before = threads_of(os.getpid())
    sum(range(3_000_000))
    time.sleep(0.001)  # the kernel adds up what a thread has used when it leaves the processor
    after = threads_of(os.getpid())
    done.set()
    idle.join()
    used = {tid: after[tid] - before[tid] for tid in (os.getpid(), idle.native_id or 0)}
    assert used[os.getpid()] > used[idle.native_id or 0]


def test_readers_share_the_files(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(5)]
    for file in files:
        file.touch()
    together(Path.unlink, files, 2)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_fails_fails_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a reader failed"):
        together(Path.unlink, [tmp_path / "missing"], 2)
