"""What is wrong with a mount, by its state: the gravest first, each with its code."""

from __future__ import annotations

from axonfs.observe.health import troubles

WELL = {
    "cache": "/cache",
    "disk": {"fault": None},
    "registries": [{"url": "https://one/", "state": "ok"}, {"url": "x", "state": "not asked"}],
    "hubs": [],
    "quarantined": [],
}


def test_nothing_is_wrong() -> None:
    assert troubles(WELL) == []


def test_the_gravest_comes_first() -> None:
    state = WELL | {
        "quarantined": [{"sha256": "ab" * 32, "cause": "wrong digest", "hint": "verify it"}],
        "hubs": [{"url": "https://hf", "state": "failing", "error": "503"}],
        "disk": {"fault": "No space left on device"},
    }
    found = troubles(state)
    assert [one.code for one in found] == [4, 5, 6]
    assert [str(one) for one in found] == [
        "disk: No space left on device; free or repair the disk of /cache",
        "sources: https://hf does not answer: 503; axonfs doctor checks the way there",
        "quarantine: abababababab is not served: wrong digest; verify it",
    ]
