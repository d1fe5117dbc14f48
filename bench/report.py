"""The tables of README.md and details.md, made from results/*.json.

README.md has the figures by which a reader decides, details.md has all of them, and those of other
machines, which host.sh writes into results/hosts/NAME.

    python -m bench.report

plots.py makes the plots, because that needs matplotlib.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bench.experiment import RESULTS

README, DETAILS = (Path(__file__).with_name(name) for name in ("README.md", "details.md"))
HOSTS = RESULTS / "hosts"
BEGIN, END = "<!-- results: written by bench/report.py -->", "<!-- end of results -->"
EXPERIMENTS = (
    "warm", "cold", "tls", "scale", "line", "firstbyte", "pin", "mounts", "objectstore", "oci",
    "tensors", "serve", "loaders", "memory", "metadata", "growth", "fleet",
)  # fmt: skip
# Run by host.sh alone.
HOST_EXPERIMENTS = ("gpu", "ready")

# The figures that README.md shows.
DECISIVE = (
    "warm read, 1 MiB reads, with* passthrough",
    "warm read, mmap sweep, with* passthrough",
    "cold read*, cache on a disk",
    "daemon CPU, cold read*",
    "ceiling, *, 4 readers",
    "cold read, 1 Gbit/s, *",
    "first byte, *",
    "pin of *",
    "other mounts, *",
    "object store, *",
    "OCI registry, *",
    "safe_open of all tensors, cold",
    "vllm serve ready*",
    "loader *, cold, 1 Gbit/s",
    "resident memory, *",
    "ls -lR of * versions, warm",
    "time per byte, *",
    "fleet of *",
)
TARGETS_PLOT = "![every figure against its target](results/targets.png)"
PLOTS = (
    "![what a byte or an entry costs as things grow](results/growth.png)",
    "![AxonFS and other mounts](results/mounts.png)",
)

Result = dict[str, Any]


def results(folder: Path = RESULTS) -> list[Result]:
    """The existing results, in the order of EXPERIMENTS."""
    paths = [folder / f"{name}.json" for name in (*EXPERIMENTS, *HOST_EXPERIMENTS)]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def summary(found: Sequence[Result]) -> str:
    """What README.md shows: the decisive figures, and how many targets are met."""
    every = len(_answers(found))
    link = f"[details.md](details.md) has all {every} figures, and what holds those that miss."
    return "\n".join([table(found, DECISIVE), *_notes(found), f"* {link}", "", TARGETS_PLOT, ""])


def details(found: Sequence[Result], hosts: Mapping[str, Sequence[Result]]) -> str:
    """What details.md shows: every figure of this machine, then of each other one."""
    parts = [table(found), *_notes(found), "", *PLOTS, ""]
    for name, theirs in hosts.items():
        parts += [f"### {name}", "", table(theirs), *_notes(theirs), ""]
    return "\n".join(parts)


def hosts(folder: Path = HOSTS) -> dict[str, list[Result]]:
    """The results of other machines, by the names of their folders."""
    return {path.name: results(path) for path in sorted(folder.glob("*/"))}


def table(found: Iterable[Result], shown: Sequence[str] = ("*",)) -> str:
    """The table with one row per answer whose name matches a pattern."""
    rows = ["| experiment | against | measured | target | |", "|---|---|---|---|---|"]
    rows += _rows(
        answer
        for answer in _answers(found)
        if any(fnmatchcase(answer["what"], pattern) for pattern in shown)
    )
    return "\n".join([*rows, ""])


def _answers(found: Iterable[Result]) -> list[Result]:
    return [answer for result in found for answer in result["answers"]]


def _rows(answers: Iterable[Result]) -> Iterable[str]:
    for answer in answers:
        measured = f"{_plain(answer['value'])} {answer['unit']}"
        cells = [answer["what"], answer["against"], measured, answer["bound"], _verdict(answer)]
        yield f"| {' | '.join(cells)} |"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _verdict(answer: Result) -> str:
    verdict = str(answer["verdict"])
    return f"**{verdict}**" if answer["met"] is False else verdict


def _notes(found: Sequence[Result]) -> list[str]:
    """The machines, dates and rounds of the results, and the experiments that did not run."""
    judged = [answer["met"] for answer in _answers(found)]
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
    hardware = f"{on['cpu']}, {on['cores']} cores, {on['memory_gib']} GiB"
    if gpu := on.get("gpu"):
        hardware += f", {gpu}"
    depth = "--quick" if result["quick"] else "full"
    software = f"Linux {on['kernel']}, Python {on['python']}"
    return f"{result['date']}, {depth}, {hardware}, {software}"


def _run(result: Result) -> str:
    readers = result.get("readers", [1])
    some = f" ({', '.join(map(str, readers))} readers)" if readers != [1] else ""
    return f"{result['experiment']} ×{result['rounds']}{some}"


def between_markers(text: str, inner: str) -> str:
    """`text` with a new part between the markers."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the markers {BEGIN} and {END} are missing")
    return f"{before}{BEGIN}\n\n{inner}\n{END}{after}"


def main() -> None:
    found = results()
    for page, made in ((README, summary(found)), (DETAILS, details(found, hosts()))):
        text = page.read_text(encoding="utf-8")
        page.write_text(between_markers(text, made), encoding="utf-8")


if __name__ == "__main__":
    main()
