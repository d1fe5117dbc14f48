"""What `axonfs top` makes of a mount's state, in any width and height."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from axonfs.cli.columns import width
from axonfs.cli.top.figures import Figures, Moment
from axonfs.cli.top.layout import Line
from axonfs.cli.top.rates import Trend
from axonfs.cli.top.views import (
    HELP,
    ORDER,
    Frame,
    View,
    alone,
    details,
    footer,
    header,
    overview,
    scrolled,
)

GIB = 1 << 30
SPEC = "nlp/llama@1.0.0"
SHARD = "nlp/llama/1.0.0/model-1.safetensors"
HOSTILE = "\x1b]0;title\x07\n</script>\u202e\"'" + "漢" * 60


def load(spec: str, local: int, size: int = 10 * GIB, state: str = "running") -> dict[str, Any]:
    return {"spec": spec, "trigger": "config.json", "state": state, "local": local, "size": size}


def wait(seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "operation": "read",
        "pid": 4123,
        "program": "vllm",
        "path": SHARD,
        "spec": SPEC,
        "cause": "first_byte",
        "text": "http://registry has sent nothing for 12 s",
        "hint": "axonfs doctor",
        **more,
    }


def state(*loads: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"since": 1000.0, "prefetch": {"loads": list(loads)}, **more}


def moment(*states: dict[str, Any], pause: float = 1.0) -> Moment:
    """The last of several moments."""
    figures = Figures()
    found = [figures.moment(each, 5000.0 + pause * n) for n, each in enumerate(states)]
    return found[-1]


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


def line_of(lines: list[Line], word: str) -> str:
    return next(text for text in texts(lines) if word in text)


def test_a_load_has_its_rate_and_the_time_that_is_left() -> None:
    now = moment(*(state(load(SPEC, n * GIB)) for n in range(5)))
    line = line_of(alone(now, "loads", View(), 120), SPEC)
    assert (
        line.split()
        == f"{SPEC} prefetch [####------] 40 % 10 GiB 1.0 GiB/s 6 s config.json".split()
    )


def test_a_load_at_its_begin_at_its_end_and_of_unknown_size() -> None:
    ended = load("nlp/done@1", 10 * GIB, state="done")
    now = moment(state(load(SPEC, 0), load("nlp/full@1", 10 * GIB), load("nlp/new@1", 0, 0), ended))
    lines = alone(now, "loads", View(), 120)
    assert line_of(lines, SPEC).split()[1:5] == ["prefetch", "[----------]", "0", "%"]
    assert "[##########]  100 %  10 GiB" in line_of(lines, "full")
    assert "done" in line_of(lines, "full")
    assert line_of(lines, "nlp/new").split()[2:] == ["[??????????]", "?", "?", "?", "config.json"]
    assert "nlp/done" not in "".join(texts(overview(now, View(), 120, 40)))


def test_a_load_that_stands_still_says_for_how_long() -> None:
    now = moment(*(state(load(SPEC, GIB)) for _ in range(10)))
    line = next(line for line in alone(now, "loads", View(), 120) if line.spec == SPEC)
    assert "idle 9 s" in line.text
    assert line.style == "warn"


def test_a_worker_that_begins_to_count_again_gives_no_negative_rate() -> None:
    states = [state(open=[{"path": "a/b/1/f", "bytes_read": n, "size": 9}]) for n in (900, 950, 5)]
    assert moment(*states).files[0].rate is None


def test_pins_and_readers_load_as_well() -> None:
    opened = [
        {"path": f"nlp/open/1/{name}", "spec": "nlp/open@1", "local": 1, "size": 2, "handles": 1}
        for name in "ab"
    ]
    pinning = [{"spec": "nlp/pin@1", "path": "x", "local": 1, "size": 4}]
    now = moment(state(load(SPEC, 0), open=[*opened, {**opened[0], "spec": SPEC}], pinning=pinning))
    assert [(one.kind, one.spec, one.local, one.size) for one in now.loads] == [
        ("pin", "nlp/pin@1", 1, 4),
        ("prefetch", SPEC, 0, 10 * GIB),
        ("read", "nlp/open@1", 2, 4),
    ]


def test_the_first_screen_says_who_waits_for_what_among_a_hundred_loads() -> None:
    others = [load(f"nlp/other-{number}@1.0.0", GIB) for number in range(100)]
    failing = {"url": "http://second/", "error": "connection refused", "since": 4000.0}
    now = moment(
        state(
            *others,
            load(SPEC, GIB),
            waits=[wait(2, program="cat", pid=7), wait(14), wait(9)],
            registries=[{"url": "http://registry/", "error": None}, failing],
            failures=[{"time": 4999.0, "message": "nlp/a@1: gone"}],
            open=[{"path": SHARD, "size": 1, "local": 1, "handles": 1}],
        )
    )
    page = overview(now, View(), 80, 19)
    assert len(page) <= 19
    assert page[0] == Line(f"WAITING 2: {now.wait_trend.blocks(20)}", "alarm")
    assert texts(page[1:4]) == [
        f"14 s  vllm (4123)  {SPEC}  model-1.safetensors × 2",
        "    http://registry has sent nothing for 12 s",
        "    → axonfs doctor",
    ]
    assert texts(page[4:6]) == [
        f" 2 s  cat (7)      {SPEC}  model-1.safetensors",
        "    http://registry has sent nothing for 12 s",  # what to do is said once
    ]
    loads = texts(page).index(line_of(page, "LOADS 101"))
    assert page[loads + 1].spec == SPEC  # what a reader waits for comes first
    assert "more; 2 shows all" in line_of(page[loads:], "more")
    assert "fails since" in line_of(page, "second")
    assert "RECENT FAILURES" in texts(page)


def test_each_address_of_a_site_cache_has_its_own_figures() -> None:
    cache = {"url": "http://near", "fault": None, "bytes": 0, "requests": 0}
    near = [{**cache, "address": f"10.0.0.{last}"} for last in (1, 2)]
    asked = {"source": "https://one/", "requests": 3, "bytes": 9, "rate": 0}
    counts = [
        {**asked, "cache": f"http://near at 10.0.0.{last}", "errors": {"503": last}}
        for last in (1, 2)
    ]
    one = {"url": "https://one", "error": None, "caches": near}
    found = moment(state(registries=[one], fetch={"sources": counts})).sources
    assert [(source.name, source.errors) for source in found if source.is_cache] == [
        ("http://near at 10.0.0.1", {"503": 1}),
        ("http://near at 10.0.0.2", {"503": 2}),
    ]


def test_without_anything_it_says_so() -> None:
    page = texts(overview(moment(state()), View(), 80, 20))
    assert page == ["WAITING: no reader waits", "", "LOADS: none is under way"]


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
@pytest.mark.parametrize("lines", [3, 15, 45])
def test_no_line_is_too_long_and_no_name_controls_the_terminal(columns: int, lines: int) -> None:
    cache = {"url": HOSTILE, "address": HOSTILE, "fault": HOSTILE, "bytes": 1, "since": 1}
    now = moment(
        state(
            *(load(f"{HOSTILE}{number}", number) for number in range(100)),
            waits=[wait(20, program=HOSTILE, text=HOSTILE, hint=HOSTILE, spec=HOSTILE)],
            registries=[{"url": HOSTILE, "error": HOSTILE, "caches": [cache]}],
            failures=[{"time": 1, "message": HOSTILE}],
            open=[{"path": HOSTILE, "spec": HOSTILE, "size": 2, "local": 1, "handles": 1}],
            settings_fault=HOSTILE,
            disk={"fault": HOSTILE},
            waited={HOSTILE: 4, "disk": 2},
        )
    )
    view, frame = View(needle=""), Frame(HOSTILE, HOSTILE, HOSTILE)
    pages = [
        overview(now, view, columns, lines),
        header(now, frame, columns),
        details(now, HOSTILE, {"path": HOSTILE, "files": [{"path": HOSTILE}]}, "", columns),
        [footer(view, "loads", columns, inside=False)],
        *(alone(now, table, view, columns) for table in ORDER),
    ]
    assert len(pages[0]) <= lines
    for line in itertools.chain.from_iterable(pages):
        assert width(line.text) < columns
        assert line.text.isprintable()
        assert "\u202e" not in line.text


@pytest.mark.parametrize("value", [None, "x", -1, float("nan"), [], {}, True, [1], {"a": None}])
def test_another_users_status_file_may_say_anything(value: Any) -> None:
    names = [*ORDER, "since", "waits", "waited", "open", "fetch", "registries", "hubs", "disk"]
    names += ["prefetch", "pinning", "operations", "worker", "pins", "quarantined", "cache_used"]
    inner = [dict.fromkeys((*load("", 0), *wait(0), "url", "caches", "errors", "time"), value)]
    nested = {"loads": value, "sources": inner, "ends": inner, "count": value}
    for found in (value, inner, nested):
        now = moment(dict.fromkeys(names, found), dict.fromkeys(names, found))
        assert overview(now, View(), 80, 20)
        assert header(now, Frame("/m"), 80)


def test_filter_and_order() -> None:
    now = moment(state(load("nlp/a@1", GIB, 2 * GIB), load("nlp/b@1", GIB, 9 * GIB)))
    assert [line.spec for line in alone(now, "loads", View(needle="LP/B"), 80)] == ["", "nlp/b@1"]
    view = View()
    view.sort("loads")
    view.sort("loads")
    assert view.order("loads") == "size"
    assert [line.spec for line in alone(now, "loads", view, 80)] == ["", "nlp/b@1", "nlp/a@1"]


def test_details_show_each_file_once_and_the_open_ones_first() -> None:
    opened = [{"path": SHARD, "spec": SPEC, "size": 4, "local": 1, "handles": 2}]
    files = [{"path": name, "size": 4, "local": 4} for name in ("a.txt", "model-1.safetensors")]
    info = {"size": 8, "local": 5, "pinned": "", "source": "http://registry/", "files": files}
    lines = texts(details(moment(state(open=opened)), SPEC, info, "", 80))
    assert lines[:4] == [SPEC, "local: 62 % of 8 B", "pinned: no", "source: http://registry/"]
    assert [line.split()[0] for line in lines[-3:]] == ["FILES", "model-1.safetensors", "a.txt"]
    asked = texts(details(moment(state(open=opened)), SPEC, None, "only alice may ask", 80))
    assert asked[1] == "only alice may ask"


def test_a_page_scrolls_to_its_cursor() -> None:
    page = [Line(str(number), key=str(number)) for number in range(100)]
    assert scrolled(page, "50", 0, 10) == 42
    assert scrolled(page, "50", 80, 10) == 49
    assert scrolled(page, "", 500, 10) == 90
    assert scrolled(page[:5], "4", 3, 10) == 0


def test_a_trend_is_as_high_as_its_highest_value() -> None:
    trend = Trend()
    assert trend.blocks(5) == ""
    for value in (0, 50, 100):
        trend.note(value)
    assert trend.blocks(5) == "▁▅█"


def test_the_help_fits_into_a_small_terminal() -> None:
    assert max(map(len, HELP.splitlines())) < 80
    assert len(HELP.splitlines()) <= 20
