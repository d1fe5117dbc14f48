"""Every promise of docs/security.md names tests, and there are such tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def promises() -> list[str]:
    text = (ROOT / "docs/security.md").read_text().partition("## What is not promised")[0]
    return re.split(r"^\d+\. ", text, flags=re.MULTILINE)[1:]


def test_every_promise_names_tests_that_exist() -> None:
    existing = {
        node.name
        for file in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    named = [re.findall(r"`(test_\w+)`", promise) for promise in promises()]
    assert len(named) > 20
    assert all(named)
    assert {name for names in named for name in names} - existing == set()
