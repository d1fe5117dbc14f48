"""The table of README.md, made from results/*.json.

    python -m bench.report

plots.py makes the plots, because that needs matplotlib.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.experiment import RESULTS

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- results: written by bench/report.py -->", "<!-- end of results -->"
EXPERIMENTS = (
    "warm", "cold", "tls", "scale", "line", "firstbyte", "pin", "mounts", "tensors", "serve",
    "loaders", "memory", "metadata", "growth",
)  # fmt: skip

PLOTS = (
    "![every figure against its target](results/targets.png)",
    "![what a byte or an entry costs as things grow](results/growth.png)",
    "![AxonFS and other mounts](results/mounts.png)",
)

Result = dict[str, Any]


def results(folder: Path = RESULTS) -> list[Result]:
    """The existing results, in the order of EXPERIMENTS."""
    paths = [folder / f"{name}.json" for name in EXPERIMENTS]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def table(found: Iterable[Result]) -> str:
    """The table with one row per answer, and the notes below it."""
    found = list(found)
    if not found:
        return "Nothing has been measured yet.\n"
    rows = ["| experiment | against | measured | target | |", "|---|---|---|---|---|"]
    rows += [row for result in found for row in _rows(result)]
    return "\n".join([*rows, "", *_notes(found), "", *PLOTS, ""])


def _rows(result: Result) -> Iterable[str]:
    for answer in result["answers"]:
        measured = f"{_plain(answer['value'])} {answer['unit']}"
        cells = [answer["what"], answer["against"], measured, answer["bound"], _verdict(answer)]
        yield f"| {' | '.join(cells)} |"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _verdict(answer: Result) -> str:
    verdict = str(answer["verdict"])
    return f"**{verdict}**" if answer["met"] is False else verdict


def _notes(found: list[Result]) -> list[str]:
    """The machines, dates and rounds of the results, and the experiments that did not run."""
    judged = [answer["met"] for result in found for answer in result["answers"]]
    notes = [f"{judged.count(True)} targets met, {judged.count(False)} missed."]
    for machine in dict.fromkeys(_machine(result) for result in found):
        names = [_run(result) for result in found if _machine(result) == machine]
        notes.append(f"{machine}: {', '.join(names)}.")
    left_out = [f"{result['experiment']}: {why}" for result in found for why in result["not_run"]]
    if left_out:
        notes.append(f"Not run: {'; '.join(left_out)}.")
    return [f"* {note}" for note in notes]


def _machine(result: Result) -> str:
    on = result["machine"]
    return (
        f"{result['date']}, {'--quick' if result['quick'] else 'full'}, {on['cpu']},"
        f" {on['cores']} cores, {on['memory_gib']} GiB, Linux {on['kernel']}, Python {on['python']}"
    )


def _run(result: Result) -> str:
    return f"{result['experiment']} ×{result['rounds']}"


def between_markers(text: str, inner: str) -> str:
    """`text` with a new part between the markers."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the markers {BEGIN} and {END} are missing")
    return f"{before}{BEGIN}\n\n{inner}\n{END}{after}"


def main() -> None:
    made = table(results())
    text = README.read_text(encoding="utf-8")
    README.write_text(between_markers(text, made), encoding="utf-8")
    print(made)


if __name__ == "__main__":
    main()
