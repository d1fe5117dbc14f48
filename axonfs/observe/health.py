"""What is wrong with a mount, by its state. Pure.

`axonfs status --check` exits with the code of the gravest trouble; /readyz lists all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

# The exit codes of `axonfs status --check`, gravest first. 2 is for a wrong command line.
NOT_MOUNTED, NOT_ANSWERING, DISK, SOURCES, QUARANTINE = 1, 3, 4, 5, 6


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong: which check found it, its exit code, and what to do."""

    check: str
    code: int
    text: str
    hint: str

    def __str__(self) -> str:
        return f"{self.check}: {self.text}; {self.hint}"

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def not_mounted(text: str, hint: str) -> Trouble:
    """The trouble of a mount that is not there."""
    return Trouble("mounted", NOT_MOUNTED, text, hint)


def not_answering(text: str, hint: str) -> Trouble:
    """The trouble of a mount that does not answer."""
    return Trouble("answering", NOT_ANSWERING, text, hint)


def troubles(state: Mapping[str, Any]) -> list[Trouble]:
    """What is wrong with a mount that answers, gravest first."""
    return [*_disk(state), *_sources(state), *_quarantine(state)]


def _disk(state: Mapping[str, Any]) -> Iterator[Trouble]:
    if fault := (state.get("disk") or {}).get("fault"):
        yield Trouble("disk", DISK, str(fault), f"free or repair the disk of {state.get('cache')}")


def _sources(state: Mapping[str, Any]) -> Iterator[Trouble]:
    for item in [*(state.get("registries") or ()), *(state.get("hubs") or ())]:
        if item.get("state") == "failing":
            text = f"{item.get('url')} does not answer: {item.get('error')}"
            yield Trouble("sources", SOURCES, text, "axonfs doctor checks the way there")


def _quarantine(state: Mapping[str, Any]) -> Iterator[Trouble]:
    for item in state.get("quarantined") or ():
        name = item.get("file") or str(item.get("sha256"))[:12]
        text = f"{name} is not served: {item.get('cause')}"
        yield Trouble("quarantine", QUARANTINE, text, str(item.get("hint")))
