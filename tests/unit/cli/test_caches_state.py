"""Site caches in `axonfs status`."""

from __future__ import annotations

from typing import Any

import pytest

from axonfs.cli.caches_state import MOST_LINES, show_caches


def cache(number: int, **more: Any) -> dict[str, Any]:
    known = {"url": f"http://c{number}", "address": "", "requests": 2, "bytes": 1 << 20}
    return {**known, "share": 1 / 20, "fault": None, "since": None, **more}


def test_each_of_few_caches_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    gone = cache(2, address="10.0.0.2", fault="refused\x1b[0m", since=0.0)
    unknown = cache(3, fault="no records")
    show_caches({"caches": [cache(1), gone, unknown], "fallback": "never"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "  only its site caches are asked",
        "  site cache http://c1: 1.0 MiB in 2 requests, 5 %",
    ]
    assert lines[2].startswith(
        "  site cache http://c2 at 10.0.0.2: 1.0 MiB in 2 requests, 5 %; set"
    )
    assert "\x1b" not in lines[2]
    assert lines[3].endswith("; it is not known where it is: no records")


def test_of_many_caches_those_that_are_set_aside_have_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    many = [cache(number) for number in range(MOST_LINES + 4)]
    many[7] |= {"fault": "refused", "since": 1.0, "share": 0.0}
    show_caches({"caches": many, "fallback": "origin"})
    summary, line = capsys.readouterr().out.splitlines()
    assert summary == "  20 site caches: 20 MiB in 40 requests, 0.0 to 5.0 % each; 1 set aside"
    assert "http://c7" in line


def test_a_source_without_caches_has_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_caches({"url": "http://x"})
    assert capsys.readouterr().out == ""
