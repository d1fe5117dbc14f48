"""Compare several ways of doing the same work: rounds, medians, ratios per round.

The ways run in turn, A B B A A B …, and are compared round by round, because the speed of a shared
machine drifts by more than the differences of interest. Pure, except for the clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

Figures = Mapping[str, float]
Way = Callable[[], Figures]
Found = dict[str, dict[str, list[float]]]


def rounds_of(ways: Mapping[str, Way], rounds: int) -> Found:
    """Run every way once per round, reversing the order each round; figures by way and name."""
    found: Found = {name: {} for name in ways}
    for number in range(rounds):
        order = list(ways) if number % 2 == 0 else list(ways)[::-1]
        for name in order:
            for figure, value in ways[name]().items():
                found[name].setdefault(figure, []).append(value)
    return found


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the ratios of the rounds."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def seconds(action: Callable[[], object]) -> float:
    """The seconds that `action` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def digits(value: float) -> float:
    """`value` rounded to four significant digits; more would be noise."""
    return float(f"{value:.4g}")


def summary(values: list[float]) -> dict[str, float]:
    """Median, minimum and maximum."""
    picked = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: digits(value) for name, value in picked.items()}


def summaries(found: Mapping[str, Mapping[str, list[float]]]) -> dict[str, Any]:
    """`summary` of every figure of every way."""
    return {
        way: {figure: summary(values) for figure, values in figures.items()}
        for way, figures in found.items()
    }
