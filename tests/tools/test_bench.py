"""The bench's sums, verdicts and table; and that no program of it is forgotten. No timings here."""

from __future__ import annotations

import json
from fnmatch import filter as filter_names
from pathlib import Path
from typing import Any

import pytest

from bench.experiment import Answer, Experiment
from bench.measure import ratio, rounds_of, summary
from bench.report import (
    BEGIN,
    DECISIVE,
    DETAILS,
    END,
    EXPERIMENTS,
    HOST_EXPERIMENTS,
    README,
    between_markers,
    details,
    hosts,
    results,
)
from bench.report import (
    summary as summary_of,
)

BENCH = README.parent


def result(*answers: Answer, name: str = "cold", not_run: str = "") -> dict[str, Any]:
    trial = Experiment(name, quick=True, rounds=5, answers=list(answers))
    trial.not_run += [not_run] if not_run else []
    written: dict[str, Any] = json.loads(json.dumps(trial.document()))
    return written


def test_ways_take_turns() -> None:
    ran = []

    def way(name: str) -> dict[str, float]:
        ran.append(name)
        return {"seconds": float(len(ran))}

    found = rounds_of({"a": lambda: way("a"), "b": lambda: way("b")}, 3)
    assert ran == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": {"seconds": [1.0, 4.0, 5.0]}, "b": {"seconds": [2.0, 3.0, 6.0]}}


def test_ratio_is_of_pairs_and_not_of_medians() -> None:
    assert ratio([1, 20, 300], [2, 10, 100]) == 2
    with pytest.raises(ValueError, match="shorter"):
        ratio([1, 2], [1])


def test_summary_is_the_middle_and_the_ends() -> None:
    assert summary([3, 1.23456, 2]) == {"median": 2, "min": 1.235, "max": 3}


@pytest.mark.parametrize(
    ("answer", "met", "bound", "verdict"),
    [
        (Answer("q", "x", 1.0, "×", 1.0), True, "≤ 1", "met"),
        (Answer("q", "x", 1.5, "×", 1.0), False, "≤ 1", "missed by 50%"),
        (Answer("q", "x", 0.97, "×", 0.97, at_least=True), True, "≥ 0.97", "met"),
        (Answer("q", "x", 0.5, "×", 1.0, at_least=True), False, "≥ 1", "missed by 50%"),
        (Answer("q", "x", 1.001, "×", 1.0), False, "≤ 1", "missed by less than 1%"),
        (Answer("q", "x", 3, "requests", 0), False, "≤ 0", "missed by 3"),
        (Answer("q", "x", 3, "s"), None, "–", "–"),
    ],
)
def test_verdict(answer: Answer, met: bool | None, bound: str, verdict: str) -> None:
    assert (answer.met, answer.bound, answer.verdict) == (met, bound, verdict)


def test_details_have_a_row_per_answer_and_say_what_is_missing() -> None:
    found = [
        result(Answer("read", "curl", 0.8, "× time", 1.0), Answer("cpu", "–", 2, "s", 1.5)),
        result(name="pin", not_run="no aria2c"),
    ]
    shown = details(found, {})
    assert "| read | curl | 0.8 × time | ≤ 1 | met |" in shown
    assert "| cpu | – | 2 s | ≤ 1.5 | **missed by 33%** |" in shown
    assert "1 targets met, 1 missed." in shown
    assert "cold ×5, pin ×5" in shown
    assert "Not run: pin: no aria2c." in shown


def test_summary_has_the_decisive_figures_and_counts_all() -> None:
    decisive = Answer("cold read, cache on a disk", "curl", 0.8, "× time", 1.0)
    shown = summary_of([result(decisive, Answer("cold read, cache on tmpfs", "curl", 2, "×", 1))])
    assert "| cold read, cache on a disk | curl |" in shown
    assert "tmpfs" not in shown
    assert "1 targets met, 1 missed." in shown
    assert "all 2 figures" in shown


def test_details_describe_every_host(tmp_path: Path) -> None:
    theirs = result(Answer("read", "curl", 0.8, "×", 1.0))
    theirs["machine"] |= {"cpu": "EPYC", "cores": 16, "gpu": "1 × H200"}
    theirs["readers"] = [1, 16]
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "cold.json").write_text(json.dumps(theirs))
    shown = details([], hosts(tmp_path))
    _, _, big = shown.partition("### big")
    assert "| read | curl | 0.8 × | ≤ 1 | met |" in big
    assert "EPYC, 16 cores" in big
    assert "1 × H200" in big
    assert "cold ×5 (1, 16 readers)." in big


def test_only_what_is_between_the_markers_changes() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    changed = between_markers(text, "new\n")
    assert changed == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert between_markers(changed, "new\n") == changed
    with pytest.raises(ValueError, match="results"):
        between_markers("no markers", "new")


def test_pages_show_the_results_that_are_there() -> None:
    found = results()
    for page, made in ((README, summary_of(found)), (DETAILS, details(found, hosts()))):
        text = page.read_text(encoding="utf-8")
        assert between_markers(text, made) == text, "run python -m bench.report"


def test_every_decisive_figure_exists() -> None:
    names = [answer["what"] for found in results() for answer in found["answers"]]
    assert [pattern for pattern in DECISIVE if not filter_names(names, pattern)] == []


def test_every_question_is_run_and_explained() -> None:
    programs = {
        path.stem
        for path in BENCH.glob("*.py")
        if f'experiment("{path.stem}", __doc__' in path.read_text("utf-8")
    }
    assert programs == {*EXPERIMENTS, *HOST_EXPERIMENTS}
    text = README.read_text(encoding="utf-8")
    assert [name for name in programs if f"| `{name}.py` |" not in text] == []


def test_results_are_read_in_the_questions_order(tmp_path: Path) -> None:
    for name in ("pin", "warm"):
        (tmp_path / f"{name}.json").write_text(json.dumps(result(name=name)))
    assert [found["experiment"] for found in results(tmp_path)] == ["warm", "pin"]
