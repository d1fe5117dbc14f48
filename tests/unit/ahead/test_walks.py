"""Loads among programs that walk: times are the test's, threads are there or not."""

from __future__ import annotations

import threading
from typing import Any, cast

from axonfs.ahead.walks import JUDGED_AFTER, QUIET_SECONDS, Opens
from axonfs.catalog.tree import Version
from axonfs.formats.manifest import FileEntry, Manifest
from axonfs.names import parse_spec

CONFIG = "config.json"
HERE = threading.get_native_id()
GONE = 1 << 30  # no thread has such an id


def version(name: str) -> Version:
    entry = FileEntry(CONFIG, 5, name.ljust(64, "0"))
    manifest = Manifest(parse_spec(f"nlp/{name}@1"), (entry,), raw=name.encode())
    return Version(manifest, "http://x", cast(Any, object()))


def judged(opens: Opens, until: float) -> dict[str, float]:
    """The loads that are judged before `until`, with the time."""
    found: dict[str, float] = {}
    while opens and (now := opens.due()) < until:
        found |= {opened.version.spec.name: now for opened in opens.judge(now)}
    return found


def test_a_walk_that_never_ends_holds_up_no_other_program() -> None:
    opens, found = Opens(), dict[str, float]()
    for number in range(100):
        now = number * QUIET_SECONDS / 2
        found |= judged(opens, now)
        opens.add(version(f"m{number % 10}"), CONFIG, GONE, now)
        if number == 50:
            opens.add(version("one"), CONFIG, HERE, now)
    assert list(found) == ["one"]
    assert found["one"] <= 50 * QUIET_SECONDS / 2 + JUDGED_AFTER


def test_nor_does_a_walk_of_many_programs() -> None:
    """As `for each in */; do cat $each/config.json; done` is one."""
    opens, found = Opens(), dict[str, float]()
    for number in range(100):
        now = number * QUIET_SECONDS / 2
        found |= judged(opens, now)
        opens.add(version(f"m{number}"), CONFIG, GONE + number, now)
        if number == 50:
            opens.add(version("one"), CONFIG, HERE, now)
    found |= judged(opens, 1000)
    assert list(found) == ["one"]
    assert found["one"] <= 50 * QUIET_SECONDS / 2 + JUDGED_AFTER + QUIET_SECONDS
    assert not opens


def test_programs_that_walk_together_are_a_walk() -> None:
    """As a pool of processes does, each with a version or two."""
    opens, over = Opens(), threading.Event()
    others = [threading.Thread(target=over.wait) for _ in range(2)]
    for thread in others:
        thread.start()
    for number, program in enumerate([HERE, *(thread.native_id or 0 for thread in others)]):
        opens.add(version(f"m{number}"), CONFIG, program, number * 0.1)
    assert judged(opens, 1000) == {}
    over.set()


def test_opening_one_version_again_and_again_postpones_nothing() -> None:
    opens, found = Opens(), dict[str, float]()
    for number in range(20):
        now = number * QUIET_SECONDS / 10
        found |= judged(opens, now)
        opens.add(version("one"), CONFIG, HERE, now)
    assert found["one"] == QUIET_SECONDS


def test_a_short_program_alone_loads() -> None:
    """A shell script that copies a version, say."""
    opens = Opens()
    opens.add(version("one"), CONFIG, GONE, 0.0)
    assert judged(opens, 1000) == {"one": QUIET_SECONDS}


def test_after_a_walk_all_is_as_before() -> None:
    opens = Opens()
    for number in range(5):
        opens.add(version(f"m{number}"), CONFIG, GONE + number, 0.0)
    assert judged(opens, 1000) == {}
    opens.add(version("one"), CONFIG, GONE, 100.0)
    assert judged(opens, 1000) == {"one": 100.0 + QUIET_SECONDS}
