"""`axonfs status --check`: the exit code of each state, and what it prints."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from axonfs.cli import check
from axonfs.errors import AxonError, NotFoundError, UnavailableError, UsageError
from tests.support.commands import Run

WELL: dict[str, Any] = {"disk": {"fault": None}, "registries": [], "hubs": [], "quarantined": []}
FAILING = {"url": "https://one/\x1b[31m", "state": "failing", "error": "503\nok"}


def answering(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any] | AxonError) -> None:
    class State:
        def __init__(self, *_: object) -> None:
            if isinstance(answer, NotFoundError | UsageError):
                raise answer

        def read(self) -> dict[str, Any]:
            if isinstance(answer, AxonError):
                raise answer
            return answer

        def doubted(self) -> AbstractContextManager[None]:
            return nullcontext()

    monkeypatch.setattr(check, "LiveState", State)


@pytest.mark.parametrize(
    ("answer", "code", "out"),
    [
        (WELL, 0, "ok\n"),
        (NotFoundError("nothing is mounted", hint="to mount: axonfs mount"), 1, None),
        (UnavailableError("its worker (7) is stopped", hint="kill -CONT 7 continues it"), 3, None),
        (WELL | {"registries": [FAILING]}, 5, None),
    ],
)
def test_codes(
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
    answer: dict[str, Any] | AxonError,
    code: int,
    out: str | None,
) -> None:
    answering(monkeypatch, answer)
    done = run("status", "--check")
    assert done.code == code
    assert out in (None, done.out)
    assert len(done.out.splitlines()) == 1
    assert "\x1b" not in done.out
    if isinstance(answer, AxonError):
        assert done.out.endswith(f": {answer}\n")
    shown = json.loads(run("status", "--check", "--json").out)
    assert shown["healthy"] is (code == 0)
    assert [one["code"] for one in shown["troubles"]] == ([code] if code else [])


def test_several_mounts_are_no_answer(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    answering(monkeypatch, UsageError("there are 2 mounts", hint="name one"))
    done = run("status", "--check")
    assert (done.code, done.out) == (2, "")
