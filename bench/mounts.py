"""AxonFS against other mounts: one large file, cold and warm, by read and by mmap.

Cold: mount and cache are new. Warm: the cache is complete and in the page cache, and the kernel has
no pages of the mount's file. Every system is started again in every round. A peer that cannot run
here is left out, and the results say why.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

from bench import peers
from bench.experiment import Answer, Experiment, NotRunError, experiment
from bench.fixtures import (
    GIB,
    MIB,
    cold_mount,
    forget,
    publish_model,
    scratch,
    settle,
    touch_memory,
    write_model,
)
from bench.measure import Figures, Found, ratio, rounds_of, seconds, summaries
from bench.origin import Origin, serving
from bench.peers import Peer
from bench.readers import Reader, dd, first_page, sweep

SPEC = "bench/mounts@1.0.0"
TARGETS = {"cold": 4.0, "warm": 5.0}
READERS: dict[str, Reader] = {"read": dd, "mmap": sweep}


@contextlib.contextmanager
def axonfs(origin: Origin, work: Path) -> Iterator[Path]:
    with cold_mount(origin.url, work) as mount:
        yield mount.version(SPEC) / "model-00000.safetensors"


def both_states(peer: Peer, size: int) -> Figures:
    """The seconds of every reader, cold and then warm."""
    figures = {}
    for name, reader in READERS.items():
        with peer() as file:
            settle(2 * size)
            figures[f"cold {name}"] = seconds(partial(reader, file))
            forget(file)
            touch_memory(size)
            figures[f"warm {name}"] = seconds(partial(reader, file))
    return figures


def answer(trial: Experiment, found: Found, figure: str) -> None:
    """AxonFS' speed over that of the peer with the best median, by the ratios of the rounds."""
    rivals = [name for name in found if name != "axonfs"]
    best = min(rivals, key=lambda name: median(found[name][figure]))
    times = ratio(found[best][figure], found["axonfs"][figure])
    state = figure.split()[0]
    against = f"the best of {len(rivals)}: {best}"
    trial.answer(
        Answer(f"other mounts, {figure}", against, times, "× speed", TARGETS[state], at_least=True)
    )


def main() -> None:
    with (
        experiment("mounts", __doc__, quick_rounds=2) as trial,
        scratch() as work,
        contextlib.ExitStack() as stack,
    ):
        size = trial.size(128 * MIB, GIB)
        trial.figures["bytes"] = size
        publish_model(write_model(work / "model", 1, size), SPEC, work / "registry")
        origin = stack.enter_context(serving(work / "registry", work, listing=True))
        origin.warm()
        source = max(origin.paths(), key=lambda path: path.stat().st_size)
        file = str(source.relative_to(origin.root))
        ways: dict[str, Peer] = {"axonfs": lambda: axonfs(origin, work)}
        starts: dict[str, Callable[[], Peer]] = {
            "rclone": lambda: peers.rclone(origin, work, file),
            "httpdirfs": lambda: peers.httpdirfs(origin, work, file),
            "juicefs": lambda: stack.enter_context(peers.juicefs(source, work)),
        }
        for name, begin in starts.items():
            try:
                ways[name] = begin()
                with ways[name]() as path:
                    first_page(path)  # fails if the mount does not work
            except (NotRunError, OSError, subprocess.SubprocessError) as exc:
                ways.pop(name, None)
                trial.not_run.append(f"{name}: {exc}")
        runs = {name: partial(both_states, peer, size) for name, peer in ways.items()}
        found = rounds_of(runs, trial.rounds)
        trial.figures |= summaries(found)
        if len(ways) > 1:
            for figure in found["axonfs"]:
                answer(trial, found, figure)


if __name__ == "__main__":
    main()
