"""One experiment as a program: its flags, its answers against their targets, and its JSON.

    with experiment("cold", __doc__) as trial:
        trial.figures["…"] = …
        trial.answer(Answer(…))

The results are written when the block ends without an error, or with the reason if this machine
cannot run the experiment (NotRunError). Every signal ends the block with an exception, so that
mounts, namespaces and processes, each in a `with` of its own, are removed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from bench.measure import digits

RESULTS = Path(__file__).parent / "results"
ROUNDS, QUICK = 5, 3
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class NotRunError(Exception):
    """This machine cannot run the experiment; the message says what is missing."""


@dataclass(frozen=True)
class Answer:
    """One figure, what it is compared with, and its target.

    `target` is a maximum, or a minimum if `at_least` is set; None without a target.
    """

    what: str
    against: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    @property
    def bound(self) -> str:
        """The target as the table shows it."""
        if self.target is None:
            return "–"
        return f"{'≥' if self.at_least else '≤'} {self.target:g}"

    @property
    def verdict(self) -> str:
        """ "met", or by which part of the target the figure missed it."""
        if self.target is None:
            return "–"
        if self.met:
            return "met"
        if not self.target:
            return f"missed by {self.value:g}"
        part = abs(self.value - self.target) / self.target
        return f"missed by {part:.0%}" if part >= 0.01 else "missed by less than 1%"

    def json(self) -> dict[str, Any]:
        shown = {"what": self.what, "against": self.against, "value": digits(self.value)}
        shown |= {"unit": self.unit, "target": self.target, "bound": self.bound}
        return shown | {"met": self.met, "verdict": self.verdict, "note": self.note}


@dataclass
class Experiment:
    """One run of an experiment: its options and its results; `not_run` has reasons for gaps.

    `readers` are the numbers of processes that read at the same time, one measurement for each.
    """

    name: str
    quick: bool
    rounds: int
    readers: tuple[int, ...] = (1,)
    figures: dict[str, Any] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)

    def answer(self, answer: Answer) -> None:
        self.answers.append(answer)
        print(f"    {answer.what}: {digits(answer.value):g} {answer.unit}, {answer.verdict}")

    def size(self, quick: int, full: int) -> int:
        """`quick` with --quick, else `full`: bytes or counts."""
        return quick if self.quick else full

    def document(self) -> dict[str, Any]:
        return {
            "experiment": self.name,
            "date": time.strftime("%Y-%m-%d"),
            "quick": self.quick,
            "rounds": self.rounds,
            "readers": self.readers,
            "machine": machine(),
            "not_run": self.not_run,
            "answers": [answer.json() for answer in self.answers],
            "figures": self.figures,
        }


@contextlib.contextmanager
def experiment(
    name: str, about: str | None, *, quick_rounds: int = QUICK, readers: Sequence[int] = ()
) -> Iterator[Experiment]:
    """Run one experiment and write `NAME.json` into `results`, or into AXONFS_BENCH_RESULTS.

    Args:
        quick_rounds: the number of rounds with --quick, for experiments with long rounds.
        readers: the default of --readers, for experiments that have this option.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer slow rounds")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}")
    if readers:
        shown = f"how many processes read; default: {' '.join(map(str, readers))}"
        parser.add_argument("--readers", type=int, nargs="+", metavar="N", help=shown)
    parser.set_defaults(readers=readers or (1,))
    chosen = parser.parse_args()
    rounds = chosen.rounds or (quick_rounds if chosen.quick else ROUNDS)
    trial = Experiment(name, chosen.quick, rounds, tuple(chosen.readers))
    for number in _ENDING:
        signal.signal(number, _end)
    _without_proxies()
    try:
        yield trial
    except NotRunError as exc:
        trial.not_run.append(str(exc))
        print(f"    not run: {exc}", file=sys.stderr)
    folder = Path(os.environ.get("AXONFS_BENCH_RESULTS", RESULTS))
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(trial.document(), indent=1, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """End on the first signal. A second one, from a terminal or tools/bench, must not stop the
    clean-up."""
    for ending in _ENDING:
        # Not SIG_IGN: Python reports a signal that has arrived but is not handled yet.
        signal.signal(ending, lambda *_: None)
    raise SystemExit(128 + number)


def _without_proxies() -> None:
    """Remove proxies from the environment: every origin is on this machine."""
    for key in [key for key in os.environ if key.lower().endswith("_proxy")]:
        del os.environ[key]


def machine() -> dict[str, Any]:
    """The machine that the figures were measured on."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": _value(Path("/proc/cpuinfo").read_text(), "model name") or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / (1 << 30)),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        **({"gpu": gpu} if (gpu := _gpu()) else {}),
    }


def _gpu() -> str:
    """The GPUs, or "" if the driver of NVIDIA is not loaded."""
    found = Path("/proc/driver/nvidia/gpus").glob("*/information")
    models = [_value(path.read_text(), "Model") for path in sorted(found)]
    return f"{len(models)} × {models[0]}" if models else ""


def _value(text: str, key: str) -> str:
    """The value of the first line `KEY : VALUE`, or ""."""
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), "")
