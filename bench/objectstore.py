"""Cold reads from an object store: AxonFS, rclone and JuiceFS with the same SeaweedFS, on loopback.

Each mounts the bucket anew, with an empty cache, and reads one large file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

from axonfs.storage import S3Storage
from bench import peers
from bench.experiment import Answer, NotRunError, experiment
from bench.fixtures import GIB, MIB, cold_mount, publish_model, scratch, settle, write_model
from bench.measure import Figures, ratio, rounds_of, seconds, summaries
from bench.peers import Peer
from bench.readers import dd, first_page
from tests.support.seaweed import BUCKET

SPEC = "bench/objectstore@1.0.0"
FILE = "model-00000.safetensors"
URL = f"s3://{BUCKET}/registry"
TARGET = 1.0


@contextlib.contextmanager
def axonfs(work: Path) -> Iterator[Path]:
    with cold_mount(URL, work) as mount:
        yield mount.version(SPEC) / FILE


def cold(peer: Peer, size: int) -> Figures:
    with peer() as file:
        settle(2 * size)
        return {"cold read": seconds(partial(dd, file))}


def main() -> None:
    with (
        experiment("objectstore", __doc__, quick_rounds=2) as trial,
        scratch() as work,
        contextlib.ExitStack() as stack,
    ):
        size = trial.size(128 * MIB, GIB)
        trial.figures["bytes"] = size
        store = stack.enter_context(peers.object_store(work / "seaweed"))
        os.environ.update(store.environment())
        model = write_model(work / "model", 1, size)
        source = work / FILE
        shutil.copyfile(model / FILE, source)
        publish_model(model, SPEC, S3Storage(URL))
        (listed,) = [one for one in S3Storage(URL).list("objects/") if one.size == size]
        ways: dict[str, Peer] = {"axonfs": lambda: axonfs(work)}
        starts: dict[str, Callable[[], Peer]] = {
            "rclone": lambda: peers.rclone_on(store, work, f"registry/{listed.key}"),
            "juicefs": lambda: stack.enter_context(peers.juicefs_on(store, source, work)),
        }
        for name, begin in starts.items():
            try:
                ways[name] = begin()
                with ways[name]() as path:
                    first_page(path)  # fails if the mount does not work
            except (NotRunError, OSError, subprocess.SubprocessError) as exc:
                ways.pop(name, None)
                trial.not_run.append(f"{name}: {exc}")
        found = rounds_of(
            {name: partial(cold, peer, size) for name, peer in ways.items()}, trial.rounds
        )
        trial.figures |= summaries(found)
        rivals = [name for name in found if name != "axonfs"]
        if rivals:
            best = min(rivals, key=lambda name: median(found[name]["cold read"]))
            times = ratio(found[best]["cold read"], found["axonfs"]["cold read"])
            against = f"the best of {len(rivals)}: {best}"
            what = "object store, cold read"
            trial.answer(Answer(what, against, times, "× speed", TARGET, at_least=True))


if __name__ == "__main__":
    main()
