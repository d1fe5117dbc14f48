"""tools/chaos and the figures it writes: which there are, and where they go."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tools.reliability import BEGIN, DOCUMENT, END, ROWS, load, table, written

ROOT = Path(__file__).parents[2]


def reported() -> set[str]:
    """The names under which tests report figures."""
    folders = ("chaos", "stress", "native")
    files = [file for folder in folders for file in (ROOT / "tests" / folder).glob("*.py")]
    return {
        name for file in files for name in re.findall(r"\breport\(\s*\"(\w+)\"", file.read_text())
    }


def test_every_test_has_its_row() -> None:
    assert reported() == set(ROWS)


def test_figures_by_test(tmp_path: Path) -> None:
    (tmp_path / "figures").write_text(
        '{"test": "control", "requests": 7}\n{"test": "fuzz", "parsers": 2, "inputs": 3000}\n'
    )
    found = load(tmp_path / "figures")
    assert found == {"control": {"requests": 7}, "fuzz": {"parsers": 2, "inputs": 3000}}
    assert "| Parsers given invalid input | 2 parsers, 3,000 inputs |" in table(found)
    with pytest.raises(ValueError, match="figures are missing: kill_cold"):
        written(DOCUMENT.read_text(), found)


def test_the_document_has_its_markers() -> None:
    head, _, rest = DOCUMENT.read_text().partition(BEGIN)
    assert head
    assert END in rest


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--help",), 0, "tools/chaos --quick"),
        (("--fast",), 2, "tools/chaos --quick"),
        (("--rounds", "many"), 1, "--rounds needs a whole number"),
        (("--seed",), 1, "--seed needs a whole number"),
    ],
)
def test_usage(arguments: tuple[str, ...], code: int, said: str) -> None:
    command = [str(ROOT / "tools/chaos"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in done.stdout + done.stderr
