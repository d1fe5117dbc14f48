"""Many readers of more than the cache holds, for as long as the profile says."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest

from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.mount.conftest import Mount, MountFactory
from tests.support.nginx import nginx
from tests.support.profile import LONG, SEED, report, scaled
from tests.support.readers import Readers
from tests.support.registry import make_model

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.timeout(1800)]

CHUNK = 1 << 20
MODELS = 16
READERS = 64
KINDS = ("read", "direct", "mmap", "read")
MODEL_BYTES = scaled(6, 24) * CHUNK
SECONDS = scaled(6, 180)
MEMORY_MIB = 200
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Samples:
    """What was measured each second: chunks read in it, the processor's seconds that the worker
    took for them, and the processes' memory in MiB."""

    chunks: list[int] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    worker: list[float] = field(default_factory=list)
    holder: list[float] = field(default_factory=list)
    private: list[float] = field(default_factory=list)


def memory(pid: int, what: str) -> float:
    """A figure of a process in MiB: VmRSS, or RssAnon for what is its own."""
    text = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(f"{what}:")]
    return int(line.split()[1]) / 1024


def cpu_seconds(pid: int) -> float:
    """What a process took of the processors so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def sample(readers: Readers, mount: Mount, worker: int) -> Samples:
    """One sample a second, until the time is over."""
    samples, chunks, cpu = Samples(), readers.chunks, cpu_seconds(worker)
    for _ in range(SECONDS):
        time.sleep(1)  # the interval of the measurement
        chunks_before, chunks = chunks, readers.chunks
        samples.chunks.append(chunks - chunks_before)
        cpu_before, cpu = cpu, cpu_seconds(worker)
        samples.cpu.append(cpu - cpu_before)
        samples.worker.append(memory(worker, "VmRSS"))
        samples.private.append(memory(worker, "RssAnon"))
        samples.holder.append(memory(mount.process.pid, "VmRSS"))
    return samples


def thirds(values: Sequence[float]) -> tuple[float, float]:
    """The medians of the first third, without its start, and of the last."""
    third = len(values) // 3
    return median(values[third // 4 : third]), median(values[-third:])


def test_readers_of_four_times_the_cache(tmp_path: Path, start_mount: MountFactory) -> None:
    """64 readers over 16 models in a cache of a quarter of their size: right bytes, a throughput
    that holds, and memory that stays flat."""
    pairs = []
    for number in range(MODELS):
        sizes = {"a.bin": MODEL_BYTES * 3 // 4, "b.bin": MODEL_BYTES // 4 + 1}
        source = make_model(tmp_path / f"model{number}", sizes, seed=number)
        publish(source, parse_spec(f"nlp/m{number}@1.0.0"), tmp_path / "registry")
        pairs += [(f"nlp/m{number}/1.0.0/{name}", source / name) for name in sizes]
    limit = MODELS * MODEL_BYTES // 4
    with nginx(tmp_path / "registry", tmp_path / "nginx") as url:
        mount = start_mount(url, options=("--cache-size", str(limit)))
        mounted = [(mount.path / path, plain) for path, plain in pairs]
        worker = mount.worker()
        kinds = [KINDS[number % len(KINDS)] for number in range(READERS)]
        with Readers(kinds, mounted, chunk=CHUNK, seed=SEED) as readers:
            readers.wait(READERS)
            samples = sample(readers, mount, worker)
        assert mount.worker() == worker
        fetched = mount.fetched()
        assert fetched > limit, "nothing was evicted"
    assert max(samples.worker) < MEMORY_MIB
    assert max(samples.holder) < MEMORY_MIB
    if LONG:  # in a few seconds nothing has settled
        _check_holds(samples)
    early, late = thirds(samples.chunks)
    report(
        "many_readers",
        readers=READERS,
        seconds=SECONDS,
        chunks=readers.chunks,
        fetched=fetched,
        early_mib_per_s=early,
        late_mib_per_s=late,
        worker_mib=max(samples.worker),
        holder_mib=max(samples.holder),
    )


def _check_holds(samples: Samples) -> None:
    """Nothing grows with time: not the worker's memory, not what a chunk costs it.

    How much is read in a second is also others' doing, on a machine that is shared.
    """
    memory_early, memory_late = thirds(samples.private)
    assert memory_late < memory_early * 1.25 + 8, samples.private
    (cpu_early, cpu_late), (early, late) = thirds(samples.cpu), thirds(samples.chunks)
    assert cpu_late / late < 1.5 * cpu_early / early, (samples.cpu, samples.chunks)
    assert late > early / 4, samples.chunks
