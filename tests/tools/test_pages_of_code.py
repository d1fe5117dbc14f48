"""The pages for developers: each path that they name exists, and each command selects tests."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("docs/architecture.md", "docs/development.md", "docs/sources.md")


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_exists(page: str) -> None:
    named = set(re.findall(r"`([a-z_/.]+/[a-z_]+\.(?:py|md|sh|toml))`", (ROOT / page).read_text()))
    assert named
    roots = (ROOT, ROOT / "axonfs")
    assert [path for path in named if not any((root / path).exists() for root in roots)] == []


def commands() -> list[str]:
    text = (ROOT / "docs/development.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(("pytest", "tools/test"))]


def test_there_are_commands() -> None:
    assert len(commands()) > 3


@pytest.mark.parametrize("command", commands())
def test_a_command_selects_tests(command: str) -> None:
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", *shlex.split(command)[1:]]
    done = subprocess.run(collect, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
