"""AxonFS against the other mounts: one large file, cold and warm, by read and by mmap.

Cold: mount and cache are new. Warm: the second reader, for whom the cache is local and in the page
cache, and the kernel holds no page of the mount's file. Every system starts anew in every round.
A peer that does not run here is left out, and the result says why.
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
    """Seconds of every reader, cold and then warm."""
    figures = {}
    for name, reader in READERS.items():
        with peer() as file:
            settle(2 * size)
            figures[f"cold {name}"] = seconds(partial(reader, file))
            forget(file)
            touch_memory(size)
            figures[f"warm {name}"] = seconds(partial(reader, file))
    return figures


def answer(asked: Experiment, found: Found, figure: str) -> None:
    """Our speed over that of the fastest peer, by medians' order and ratios by round."""
    rivals = [name for name in found if name != "axonfs"]
    best = min(rivals, key=lambda name: median(found[name][figure]))
    times = ratio(found[best][figure], found["axonfs"][figure])
    state = figure.split()[0]
    against = f"the best of {len(rivals)}: {best}"
    asked.answer(
        Answer(f"other mounts, {figure}", against, times, "× speed", TARGETS[state], at_least=True)
    )


def main() -> None:
    with (
        experiment("mounts", __doc__, quick_rounds=2) as asked,
        scratch() as work,
        contextlib.ExitStack() as stack,
    ):
        size = asked.size(128 * MIB, GIB)
        asked.figures["bytes"] = size
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
                    first_page(path)  # whether it works at all
            except (NotRunError, OSError, subprocess.SubprocessError) as exc:
                ways.pop(name, None)
                asked.not_run.append(f"{name}: {exc}")
        runs = {name: partial(both_states, peer, size) for name, peer in ways.items()}
        found = rounds_of(runs, asked.rounds)
        asked.figures |= summaries(found)
        if len(ways) > 1:
            for figure in found["axonfs"]:
                answer(asked, found, figure)


if __name__ == "__main__":
    main()
