"""docs/cli.md is what the commands say of themselves, and they say it of all they take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from axonfs.cli.completing import table
from tools import cli_docs

EVERY = cli_docs.every_command()


def test_the_page_is_up_to_date() -> None:
    assert cli_docs.PAGE.read_text(encoding="utf-8") == cli_docs.page(), "run tools/cli_docs.py"
    assert table.PATH.read_text(encoding="utf-8") == table.table(), "run tools/cli_docs.py"


@pytest.mark.parametrize(
    ("command", "context"), EVERY, ids=[context.command_path for _, context in EVERY]
)
def test_every_command_and_option_has_a_help_text(
    command: click.Command, context: click.Context
) -> None:
    assert command.help
    assert command.help.splitlines()[0].endswith(".")
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, option.name
            assert f"{option.opts[0]}" in cli_docs.page()
    assert f"## {context.command_path}\n" in cli_docs.page()


def test_check_fails_on_a_page_that_lags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_docs, "PAGE", tmp_path / "cli.md")
    monkeypatch.setattr(table, "PATH", tmp_path / "table.json")
    monkeypatch.setattr(sys, "argv", ["cli_docs.py", "--check"])
    assert cli_docs.main() == 1
    monkeypatch.setattr(sys, "argv", ["cli_docs.py"])
    assert cli_docs.main() == 0
    monkeypatch.setattr(sys, "argv", ["cli_docs.py", "--check"])
    assert cli_docs.main() == 0


def test_it_runs_as_a_program() -> None:
    program = Path(cli_docs.__file__)
    done = subprocess.run(
        [sys.executable, program, "--nonsense"],
        capture_output=True,
        check=False,
        timeout=30,
        env={"PYTHONPATH": str(program.parent.parent)},
    )
    assert done.returncode == 2
