"""Cold read on a limited line with a long round trip: how much of the line's rate it uses.

1 Gbit/s, 20 and 80 ms. The line's own rate is measured beside each read: the bytes per second of
curl after its first bytes. The mount's rate is the whole file over the time from open to end,
including round trips, which weigh more for the smaller file of --quick.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from bench.downloads import program
from bench.experiment import Answer, Experiment, experiment
from bench.fixtures import GIB, MIB, cold_mount, publish_model, scratch, settle, write_model
from bench.measure import ratio, rounds_of, seconds, summaries
from bench.network import GBIT, line
from bench.origin import Origin, serving
from bench.readers import dd

SPEC = "bench/line@1.0.0"
TARGET = 0.95
SAMPLE = 64 * MIB
# Round trips in seconds, and the file size of --quick: a longer round trip needs a larger file.
QUICK = {0.02: 256 * MIB, 0.08: GIB}


def through_mount(origin: Origin, work: Path, size: int) -> Mapping[str, float]:
    with cold_mount(origin.url, work) as mount:
        file = mount.version(SPEC) / "model-00000.safetensors"
        file.stat()
        settle(size)
        return {"mbit_per_second": size * 8e-6 / seconds(lambda: dd(file))}


def of_the_line(origin: Origin) -> Mapping[str, float]:
    """The rate of one connection after its first bytes."""
    url, _ = origin.objects()[0]
    command = [program("curl"), "-sSf", "-r", f"0-{SAMPLE - 1}", "-o", "/dev/null", url]
    command += ["-w", "%{time_starttransfer} %{time_total}"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    began, ended = map(float, told.split())
    return {"mbit_per_second": SAMPLE * 8e-6 / (ended - began)}


def measure(trial: Experiment, root: Path, work: Path, size: int, rtt: float) -> None:
    with line(GBIT, rtt) as limited, serving(root, work, line=limited) as origin:
        origin.warm()
        ways = {
            "mount": lambda: through_mount(origin, work, size),
            "line": lambda: of_the_line(origin),
        }
        found = rounds_of(ways, trial.rounds)
        delay = "netem" if limited.netem else "relay"
    part = ratio(found["mount"]["mbit_per_second"], found["line"]["mbit_per_second"])
    name = f"{rtt * 1000:.0f} ms"
    figures = {**summaries(found), "part": round(part, 3), "delayed_by": delay}
    trial.figures[name] = {"bytes": size, **figures}
    what = f"cold read, 1 Gbit/s, {name}"
    trial.answer(Answer(what, "the line", part, "× rate", TARGET, at_least=True))


def main() -> None:
    with experiment("line", __doc__, quick_rounds=1) as trial, scratch() as work:
        for rtt, quick in QUICK.items():
            size, registry = trial.size(quick, 2 * GIB), work / f"registry-{rtt}"
            publish_model(write_model(work / "model", 1, size), SPEC, registry)
            measure(trial, registry, work, size, rtt)


if __name__ == "__main__":
    main()
