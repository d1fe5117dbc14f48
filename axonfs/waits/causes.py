"""What a trail of steps means to the one who waits: its cause, a sentence, and what to do.

Pure. The innermost step says what is done now, the others what it is done for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from axonfs.steps import Cause, Step

# A wait within one of these counts as that one: for a document, whether it connects or receives.
_WHOLE = frozenset({Cause.DOCUMENT, Cause.PACKAGE, Cause.CHECKING})
# But these count as themselves: there is something else to do about them.
_OWN = frozenset(
    {Cause.QUEUED, Cause.RETRYING, Cause.PAUSED, Cause.BANDWIDTH, Cause.DISK, Cause.CACHES}
)
# What to do, by what is done now.
_HINTS = {
    Cause.QUEUED: "axonfs config set streams N allows more requests at a time, if the source bears"
    " them; axonfs status shows what else is fetched",
    Cause.CONNECTING: "axonfs doctor asks each source",
    Cause.FIRST_BYTE: "the server has the request and does not answer: look at its load and log",
    Cause.RECEIVING: "the server or the line is slow or stands still: fetch the same with curl, to"
    " compare",
    Cause.RETRYING: "look at the server's log; the program gets an error once nothing came for the"
    " deadline (axonfs config get deadline)",
    Cause.PAUSED: "the source limits requests: a token may allow more, and site caches (via)"
    " spare it",
    Cause.BANDWIDTH: "axonfs config set bandwidth RATE changes the limit at once, and 0 ends it",
    Cause.PACKAGE: "its files come in one archive, from its start; from a registry that has them"
    " one by one (axonfs registry copy) each is read at once",
    Cause.DOCUMENT: "axonfs doctor asks each source",
    Cause.CHECKING: "nothing is served before its digest was right; with a chunk table, which"
    " axonfs publish makes, each chunk is compared on its own",
    Cause.DISK: "look at the disk of the cache: df, dmesg and iostat -x 1",
    Cause.CACHES: "check the site caches, which axonfs status lists; fallback: origin lets the"
    " source be asked",
    Cause.OTHER: "if it lasts, axonfs debug bundle makes a file for a bug report",
}


class Meaning(NamedTuple):
    """What a request waits for; `since` is when the present step began, by `time.monotonic`."""

    cause: Cause
    text: str
    purpose: str
    hint: str
    since: float
    source: str | None = None
    cache: str | None = None


def meaning(trail: Sequence[Step], since: float) -> Meaning:
    """What the steps say, from the outermost one to the innermost.

    Args:
        since: when the request came, where nothing else is known.
    """
    if not trail:
        text = "the mount works on it, and says of nothing that it takes long"
        return Meaning(Cause.OTHER, text, "", _HINTS[Cause.OTHER], since)
    last = trail[-1]
    whole = next((step.cause for step in trail if step.cause in _WHOLE), last.cause)
    cause = last.cause if last.cause in _OWN else whole
    return Meaning(
        cause,
        last.text,
        ", ".join(dict.fromkeys(filter(None, (step.purpose for step in reversed(trail))))),
        last.hint or _HINTS[cause if last.cause is Cause.OTHER else last.cause],
        last.since,
        next((step.source for step in reversed(trail) if step.source), None),
        next((step.cache for step in reversed(trail) if step.cache), None),
    )
