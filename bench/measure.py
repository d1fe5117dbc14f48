"""How a question is measured and written down: rounds, medians, ratios pair by pair, JSON.

Two ways of doing a thing are run in turn, A B B A A B …, and compared round by round, since
a machine that others share drifts by more than the differences that matter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ROUNDS = 5

Way = Callable[[], Mapping[str, float]]


def rounds_of(ways: Mapping[str, Way], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Run every way once a round, in an order that turns; figures by way and name."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in ways}
    for number in range(rounds):
        order = list(ways) if number % 2 == 0 else list(ways)[::-1]
        for name in order:
            for figure, value in ways[name]().items():
                found[name].setdefault(figure, []).append(value)
    return found


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the ratios round by round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def seconds(action: Callable[[], object]) -> float:
    """How long `action` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def summary(values: list[float]) -> dict[str, float]:
    """Median, least and most, to four digits."""
    picked = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in picked.items()}


def summaries(found: Mapping[str, Mapping[str, list[float]]]) -> dict[str, Any]:
    """`summary` of every figure of every way."""
    return {
        way: {figure: summary(values) for figure, values in figures.items()}
        for way, figures in found.items()
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu[0] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / (1 << 30)),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def options(about: str) -> argparse.Namespace:
    """The flags that every question takes."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="smaller files, the same rounds")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    return parser.parse_args()


def write_result(name: str, *, quick: bool, rounds: int, figures: Mapping[str, Any]) -> None:
    """Write `results/NAME.json` and show it."""
    day = time.strftime("%Y-%m-%d")
    about = {"question": name, "date": day, "quick": quick, "rounds": rounds}
    text = json.dumps({**about, "machine": machine(), "figures": figures}, indent=1)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
