"""What a trail of steps means to who waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from axonfs.steps import Cause, Step
from axonfs.trace.charts import kind_of
from axonfs.waits.causes import meaning

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("causes", "cause"),
    [
        ((), "other"),
        (("other", "connecting"), "connecting"),
        (("document", "connecting"), "document"),
        (("other", "document", "other", "receiving"), "document"),
        (("document", "paused"), "paused"),
        (("document", "retrying"), "retrying"),
        (("package", "first_byte"), "package"),
        (("package", "bandwidth"), "bandwidth"),
        (("package", "document", "connecting"), "package"),
        (("receiving", "document", "first_byte"), "document"),
        (("receiving", "disk"), "disk"),
        (("checking", "disk"), "disk"),
        (("other", "checking"), "checking"),
        (("other", "queued"), "queued"),
        (("document", "caches"), "caches"),
    ],
)
def test_the_cause(causes: tuple[str, ...], cause: str) -> None:
    """What is done now, or the whole that it is part of."""
    steps = [Step(Cause(name), f"in {name}") for name in causes]
    found = meaning(steps, since=1.0)
    assert found.cause == cause
    assert found.hint
    if steps:
        assert found.text == steps[-1].text
    else:
        assert found.since == 1.0


@pytest.mark.parametrize("cause", Cause)
def test_each_cause_has_a_hint_a_colour_and_a_row_in_the_docs(cause: Cause) -> None:
    assert meaning([Step(cause, "")], since=0.0).hint
    assert kind_of(cause) == cause
    assert f"| `{cause}` |" in (ROOT / "docs/operations.md").read_text()


def test_the_sentence_has_each_purpose_once_and_the_nearest_source() -> None:
    steps = [
        Step(Cause.OTHER, "waiting", about="in attempt 2 after: 503", source="http://far/"),
        Step(
            Cause.DOCUMENT,
            "asking",
            about="for the table",
            source="http://near/",
            cache="http://c/",
        ),
        Step(Cause.DOCUMENT, "asking", about="for the table"),
        Step(Cause.CONNECTING, "looking up h", hint="ask the name server"),
    ]
    found = meaning(steps, since=0.0)
    assert found.text == "looking up h"
    assert found.purpose == "for the table, in attempt 2 after: 503"
    assert (found.source, found.cache) == ("http://near/", "http://c/")
    assert found.hint == "ask the name server"
