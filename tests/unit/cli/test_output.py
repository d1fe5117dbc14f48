"""What people see: progress, tables, and nothing that a terminal would obey."""

from __future__ import annotations

import contextlib
import io
import json
import os
from typing import Any

import pytest

from axonfs.cli.columns import width
from axonfs.cli.output import echo, echo_json, facts, table
from axonfs.cli.progress import Pace, ProgressDisplay, bar, describe, fitted

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
    with ProgressDisplay(stream, clock=clock, width=lambda: 60) as progress:
        progress(event(0, fetched=0))
        clock.now += 1
        progress(event(50 << 20, fetched=10 << 20))
    shown = stream.getvalue()
    assert "\n" not in shown
    assert "\r\x1b[Knlp/x@1 w 50 % of 100 MiB, 10 MiB/s, 5 s left" in shown
    assert shown.endswith("\r\x1b[K")
    assert all(len(part.removeprefix("\x1b[K")) <= 59 for part in shown.split("\r"))


def test_a_terminal_is_not_redrawn_more_than_ten_times_a_second() -> None:
    stream, clock = Terminal(), Clock()
    progress = ProgressDisplay(stream, clock=clock)
    for step in range(100):
        clock.now += 0.01
        progress(event(step))
    assert stream.getvalue().count("\r") <= 11


def test_a_log_gets_plain_lines_the_rarer_the_longer_it_takes() -> None:
    stream, clock = io.StringIO(), Clock()
    with ProgressDisplay(stream, clock=clock) as progress:
        for step in range(13):
            progress(event(step << 20, fetched=step << 20))
            clock.now += 1
        lines = stream.getvalue().splitlines()
        for _ in range(3600):
            progress(event(99 << 20, fetched=99 << 20))
            clock.now += 1
    assert len(lines) == 2
    assert lines[0] == "nlp/x@1 5 % of 100 MiB, 1.0 MiB/s, 95 s left, 5.0 MiB fetched"
    assert "\x1b" not in stream.getvalue()
    assert 60 <= len(stream.getvalue().splitlines()) <= 100


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream, clock = Terminal(), Clock()
    with ProgressDisplay(stream, clock=clock) as progress:
        clock.now += 6
        progress(event(1 << 20, fetched=1 << 20))
    assert stream.getvalue() == "nlp/x@1 1 % of 100 MiB, 1.0 MiB fetched\n"


def test_a_note_breaks_the_moving_line_cleanly() -> None:
    stream, clock = Terminal(), Clock()
    with ProgressDisplay(stream, clock=clock) as progress:
        clock.now += 1
        progress(event(1, fetched=1))
        progress({"event": "note", "text": f"registry down {HOSTILE}"})
    assert "\r\x1b[Kregistry down evil?[2J??gpj??\n" in stream.getvalue()


def test_what_was_local_is_told_from_what_was_fetched() -> None:
    figures, more = describe(event(60 << 20, fetched=20 << 20), 10 << 20)
    assert figures == ["60 % of 100 MiB", "10 MiB/s", "4 s left"]
    assert more == ["20 MiB fetched", "40 MiB was local"]
    assert describe(event(60 << 20), 0.0) == (["60 % of 100 MiB", "0 B/s"], [])


LONG = {
    **event(45 << 25, 3 << 30, 40 << 25),
    "spec": "hf/meta-llama/Meta-Llama-3.1-8B-Instruct@0e9e39f249a16976918f6564b8830bc894c89659",
    "path": "original/日本語/model-00001-of-00004.safetensors",
}


@pytest.mark.parametrize("columns", [60, 80, 100, 132, 200])
@pytest.mark.parametrize("happening", [LONG, {**LONG, "spec": "nlp/x@1"}, {**LONG, "path": ""}])
def test_share_rate_and_time_left_fit_from_60_columns_on(
    columns: int, happening: dict[str, Any]
) -> None:
    line = fitted(happening, *describe(happening, 114 << 20), columns)
    assert "46 % of 3.0 GiB, 114 MiB/s, 14 s left" in line
    assert width(line) <= columns
    if columns >= 80:
        assert line.startswith("[####")
        assert "@0e9e39f2 " in line or "nlp/x@1 " in line
    if columns == 200:
        assert "MiB was local" in line
        assert "safetensors" in line or not happening["path"]


def test_less_than_60_columns_still_have_the_share() -> None:
    for columns in range(20, 60):
        line = fitted(LONG, *describe(LONG, 114 << 20), columns)
        assert "46 % of 3.0 GiB" in line
        assert width(line) <= columns


def test_the_rate_is_that_of_the_last_seconds_and_of_this_work() -> None:
    pace = Pace()
    for second in range(100):
        pace.note(event(second << 20, 1 << 40, fetched=second << 20), second)
    for second in range(100, 200):
        pace.note(event(100 << 20, 1 << 40, fetched=100 << 20), second)
    assert pace.rate(200) == 0
    pace.note({**event(0, fetched=0), "spec": "nlp/y@1"}, 200)
    assert pace.rate(200) is None
    pace.note({**event(4, fetched=4), "spec": "nlp/y@1"}, 202)
    assert pace.rate(202) == 2


def test_progress_that_nobody_reads_any_more_ends_no_work() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        progress = ProgressDisplay(stream, clock=(clock := Clock()))
        clock.now += 10
        progress(event(1, fetched=1))
        progress({"event": "note", "text": "x"})
        with contextlib.suppress(BrokenPipeError):
            stream.close()


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


def test_what_a_row_is_of_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """It is what a person copies and a script takes."""
    spec = "organisation/" + "long-" * 20 + "name@" + "0" * 40
    table(("SPEC", "DESCRIPTION"), [(spec, "d" * 200)])
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split("  ") == [spec, "d" * 59 + "…"]


def test_a_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    table(("SPEC", "SIZE"), [("nlp/long-name@1.0.0", "1 B"), ("a/b@1", "22 B")])
    assert capsys.readouterr().out == (
        "SPEC                 SIZE\nnlp/long-name@1.0.0  1 B\na/b@1                22 B\n"
    )
