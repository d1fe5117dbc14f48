"""What people see: progress, tables, and nothing that a terminal would obey."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from axonfs.cli.output import echo, echo_json, facts, table
from axonfs.cli.progress import Progress, bar, describe

HOSTILE = "evil\x1b[2J\x07\u202egpj\r\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def event(done: int, total: int = 100 << 20, fetched: int | None = None) -> dict[str, Any]:
    found = {"event": "progress", "spec": "nlp/x@1", "path": "w", "done": done, "total": total}
    return found if fetched is None else {**found, "fetched": fetched}


def test_a_terminal_gets_one_line_that_moves_and_goes() -> None:
    stream, clock = Terminal(), Clock()
    with Progress(stream, clock=clock, width=lambda: 60) as progress:
        progress(event(0, fetched=0))
        clock.now += 1
        progress(event(50 << 20, fetched=10 << 20))
    shown = stream.getvalue()
    assert "\n" not in shown
    assert "[############------------] nlp/x@1 50 % of 100 MiB" in shown
    assert shown.endswith("\r\x1b[K")
    assert all(len(part.removeprefix("\x1b[K")) <= 59 for part in shown.split("\r"))


def test_a_terminal_is_not_redrawn_more_than_ten_times_a_second() -> None:
    stream, clock = Terminal(), Clock()
    progress = Progress(stream, clock=clock)
    for step in range(100):
        clock.now += 0.01
        progress(event(step))
    assert stream.getvalue().count("\r") <= 11


def test_a_log_gets_a_plain_line_now_and_then_and_none_for_short_work() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(stream, clock=clock) as progress:
        for step in range(13):
            progress(event(step << 20, fetched=step << 20))
            clock.now += 1
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0] == "nlp/x@1 5 % of 100 MiB, 1.0 MiB/s, 5.0 MiB fetched"
    assert "\x1b" not in stream.getvalue()


def test_a_note_breaks_the_moving_line_cleanly() -> None:
    stream, clock = Terminal(), Clock()
    with Progress(stream, clock=clock) as progress:
        clock.now += 1
        progress(event(1, fetched=1))
        progress({"event": "note", "text": f"registry down {HOSTILE}"})
    assert "\r\x1b[Kregistry down evil?[2J??gpj??\n" in stream.getvalue()


def test_what_was_local_is_told_from_what_was_fetched() -> None:
    text = describe(event(60 << 20, fetched=20 << 20), 2.0)
    assert text == "nlp/x@1 60 % of 100 MiB, 10 MiB/s, 20 MiB fetched, 40 MiB was local"
    assert describe(event(60 << 20), 2.0) == "nlp/x@1 60 % of 100 MiB, 30 MiB/s"


def test_a_bar_is_full_only_at_the_end() -> None:
    assert bar(0, 0) == "[########################]"
    assert bar(999, 1000).count("-") == 1
    assert bar(5, 3).count("#") == 24


@pytest.mark.parametrize(
    "show", [echo, lambda text: facts([("a", text)]), lambda text: table(("A",), [(text,)])]
)
def test_text_from_a_registry_cannot_command_the_terminal(
    show: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    show(HOSTILE)
    shown = capsys.readouterr().out
    assert not set(shown) & set("\x1b\x07\u202e\r")
    assert "evil" in shown


def test_json_escapes_what_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    echo_json({"text": HOSTILE})
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"text": HOSTILE}
    assert shown.isascii()
    assert "\x1b" not in shown


def test_a_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    table(("SPEC", "SIZE"), [("nlp/long-name@1.0.0", "1 B"), ("a/b@1", "22 B")])
    assert capsys.readouterr().out == (
        "SPEC                 SIZE\nnlp/long-name@1.0.0  1 B\na/b@1                22 B\n"
    )
