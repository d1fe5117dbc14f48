"""The plots next to the results: every figure against its target, growth, and the other mounts.

    python -m bench.plots

Reads only results/*.json. Runs with the Python of tools/bench's environment, which has matplotlib.
"""

from __future__ import annotations

from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # before importing pyplot, which otherwise looks for a display

import matplotlib.pyplot as plt

from bench.experiment import RESULTS
from bench.report import Result, results

MET, MISSED = "#3b7dd8", "#d8703b"


def save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(RESULTS / f"{name}.png", dpi=110, bbox_inches="tight")
    plt.close(figure)


def targets(found: list[Result]) -> None:
    """Plot each figure as a multiple of its target; below 1 it missed the target."""
    answers = [answer for result in found for answer in result["answers"] if answer["target"]]
    values = [goodness(answer) for answer in answers]
    figure, axes = plt.subplots(figsize=(9, 1 + 0.22 * len(answers)))
    colours = [MET if answer["met"] else MISSED for answer in answers]
    axes.barh(range(len(answers)), [value - 1 for value in values], left=1, color=colours)
    labels = [
        " / ".join([answer["what"], answer["against"]]).removesuffix(" / –") for answer in answers
    ]
    axes.set_yticks(range(len(answers)), labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("× its target: right of 1 is met")
    save(figure, "targets")


def goodness(answer: Result) -> float:
    """Above 1 if the target is met, for both minimum and maximum targets."""
    value, target = float(answer["value"]), float(answer["target"])
    return value / target if answer["bound"].startswith("≥") else target / max(value, 1e-9)


def growth(result: Result) -> None:
    """Plot the cost of one byte or entry at each step."""
    shown = (
        ("size", "seconds_per_gib", "s per GiB"),
        ("readers", "seconds_per_gib", "s per GiB"),
        ("versions", "cold_ms_per_entry", "ms per entry, cold"),
        ("versions", "warm_ms_per_entry", "ms per entry, warm"),
    )
    figure, panels = plt.subplots(1, len(shown), figsize=(13, 3.2))
    for axes, (part, name, label) in zip(panels, shown, strict=True):
        steps = result["figures"][part]
        figures = [step[name] for step in steps.values()]
        middle = [figure["median"] for figure in figures]
        spread = [
            [figure["median"] - figure["min"] for figure in figures],
            [figure["max"] - figure["median"] for figure in figures],
        ]
        axes.errorbar(list(steps), middle, yerr=spread, marker="o", color=MET)
        axes.set_ylim(0, 1.1 * max(figure["max"] for figure in figures))
        axes.set_title(f"{part}: {label}", fontsize=9)
        axes.tick_params(labelsize=6)
    save(figure, "growth")


def mounts(result: Result) -> None:
    """Plot the read speed of each mount, cold and warm."""
    size = result["figures"]["bytes"]
    systems = {name: was for name, was in result["figures"].items() if name != "bytes"}
    kinds = list(next(iter(systems.values())))
    figure, axes = plt.subplots(figsize=(8, 3.5))
    width = 0.8 / len(systems)
    for number, (name, was) in enumerate(systems.items()):
        speeds = [size / 1e9 / was[kind]["median"] for kind in kinds]
        places = [at + number * width for at in range(len(kinds))]
        axes.bar(places, speeds, width, label=name)
    axes.set_xticks([at + 0.4 - width / 2 for at in range(len(kinds))], kinds)
    axes.set_ylabel("GB/s")
    axes.legend(fontsize=8)
    save(figure, "mounts")


def main() -> None:
    found = results()
    by_name = {result["experiment"]: result for result in found if result["answers"]}
    targets(found)
    if "growth" in by_name:
        growth(by_name["growth"])
    if "mounts" in by_name:
        mounts(by_name["mounts"])


if __name__ == "__main__":
    main()
