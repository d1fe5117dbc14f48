"""Every sentence of docs/semantics.md is the docstring of a mounted test."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def words(text: str) -> str:
    return " ".join(text.split())


def test_every_sentence_has_its_test() -> None:
    text = (ROOT / "docs/semantics.md").read_text()
    found = re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE)
    sentences = {words(line) for _, line in found}
    docstrings = set()
    for file in (ROOT / "tests/mount").glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docstrings.add(words(ast.get_docstring(node) or ""))
    assert len({number for number, _ in found}) == len(found) > 25
    assert sentences - docstrings == set()
