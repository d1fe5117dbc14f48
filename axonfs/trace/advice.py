"""What would have made the loads of a trace sooner, as sentences about what the trace shows.

Pure; above figures.py. A sentence has the seconds in which at least one reader waited for its
reason, and the longest come first. Requests that wait at the same time are not added up: the kernel
sends several of them for one reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from axonfs.trace.causes import BRIEF
from axonfs.trace.figures import FULL, Figures, said
from axonfs.trace.reading import Trace
from axonfs.trace.timeline import length, union
from axonfs.units import counted, size

# What is a smaller part of the time is not worth a sentence.
LEAST_PART, LEAST_SECONDS = 0.05, 0.05
MOST_SENTENCES = 3
# If the line was full for less than this part, it was not the line.
MUCH = 0.3
# If the line was at the mount's limit for this part, it was the limit.
MOSTLY = 0.5
# What readers wait for while the line is full.
OF_LINE = frozenset({"queued", "first_byte", "receiving", "bandwidth"})

# What readers wait for, as people say it: `{}` has the seconds.
CAUSES = {
    "queued": "a free stream to the source",
    "connecting": "connections",
    "first_byte": "first bytes",
    "receiving": "bytes on their way",
    "retrying": "another attempt after a failure",
    "paused": "the end of a pause that a source asked for",
    "bandwidth": "the mount's bandwidth limit",
    "package": "a package, which is read from its start",
    "document": "a manifest, a list or a chunk table",
    "checking": "a comparison with a digest",
    "disk": "the cache's disk",
    "caches": "site caches",
    "other": "something else",
    BRIEF: "what the trace does not say",
}


def advice(trace: Trace, figures: Figures) -> list[str]:
    """One to three sentences, the weightiest first."""
    if not figures.periods:
        return ["The trace shows neither a read nor a request."]
    if figures.waited < max(LEAST_PART * figures.seconds, LEAST_SECONDS):
        return [_little(figures)]
    weighed = sorted(_reasons(trace, figures), key=lambda reason: -reason[0])
    found = [one for seconds, one in weighed if seconds >= LEAST_PART * weighed[0][0]]
    return found[:MOST_SENTENCES]


def _little(figures: Figures) -> str:
    if not figures.requests and not figures.waited:
        return "Nothing: no bytes had to come from a source."
    if not figures.waited:
        return "Nothing: no reader waited for bytes."
    if figures.seconds < 2 * LEAST_SECONDS:
        return f"Little: readers waited for only {said(figures.waited)}."
    return (
        f"Little: readers waited for only {said(figures.waited)} of {said(figures.seconds)}; in the"
        " rest the programs did something else."
    )


def _reasons(trace: Trace, figures: Figures) -> Iterator[tuple[float, str]]:
    """Sentences, each with the seconds that it is about."""
    facts, elapsed = trace.facts, figures.elapsed
    limited = _limited(facts, figures)
    if limited:
        elapsed = {cause: seconds for cause, seconds in elapsed.items() if cause not in OF_LINE}
        pieces = [piece for piece in figures.waits if piece.cause in OF_LINE]
        elapsed["bandwidth"] = length(union((piece.start, piece.stop) for piece in pieces))
    for cause, seconds in elapsed.items():
        yield seconds, _waited(cause, seconds, facts, figures)
    many, seconds = figures.late
    if facts.get("prefetch") == "off" and many and not limited:
        late = (
            f"{counted(many, 'file')} of {len(figures.files)} were asked for only when the program"
            f" had come to them, and for {_part(seconds, figures)} a reader waited for their bytes:"
            " --prefetch auto would have asked for them ahead."
        )
        yield seconds, late


def _limited(facts: dict[str, Any], figures: Figures) -> bool:
    """Whether the mount's limit was what kept bytes from coming sooner: then a reader that waited
    for a stream, say, waited for the limit in truth."""
    limit = facts.get("bandwidth")
    if not isinstance(limit, int) or not limit:
        return False
    raised = figures.came > limit * (figures.seconds + 1) / FULL  # after the trace had begun
    return figures.fastest >= FULL * limit and figures.full >= MOSTLY and not raised


def _waited(cause: str, seconds: float, facts: dict[str, Any], figures: Figures) -> str:
    """The sentence for the readers that waited for one cause."""
    whom = CAUSES.get(cause, CAUSES["other"])
    begin = f"For {_part(seconds, figures)} a reader waited for {whom}"
    if cause == "receiving":
        return f"{begin}; {_line(figures)}"
    if cause == "first_byte" and figures.hurried:
        many = counted(figures.hurried, "request")
        half = "half of the" if figures.hurried > 1 else "the"
        return (
            f"{begin}: {half} {many} that went out because a reader waited had brought bytes after"
            f" {said(figures.first)}."
        )
    if cause == "bandwidth":
        limit = facts.get("bandwidth")
        of = f" of {size(limit)}/s" if isinstance(limit, int) and limit else ""
        return f"{begin}{of}: a higher --bandwidth would have made it sooner."
    remedy = _REMEDIES.get(cause)
    return f"{begin}: {remedy}." if remedy else f"{begin}."


def _part(seconds: float, figures: Figures) -> str:
    return f"{said(seconds)} of {said(max(figures.seconds, seconds))}"


def _line(figures: Figures) -> str:
    part = f"{100 * figures.full:.0f} % of the time in which bytes were under way"
    if figures.full < MUCH:
        return f"the line was full for only {part}, so the source or this host was slower."
    return (
        f"the line was full for {part}, at {100 * FULL:.0f} % of {size(figures.fastest)}/s or more:"
        " a faster line, or a site cache nearby, would have made it sooner."
    )


_REMEDIES = {
    "queued": "other requests had all streams; a higher setting `streams` gives more",
    "first_byte": "the source, or what is between, answers late",
    "connecting": "the network or the source takes long to accept a connection",
    "retrying": "the log names the failures",
    "paused": "it wants fewer requests; a site cache asks it once for all hosts",
    "package": "a registry that has the files themselves gives each as it is read",
    "document": "axonfs pin asks for them before a program does",
    "checking": "files that were published with chunk tables are compared as they come",
    "disk": "a faster disk for the cache",
    "caches": "axonfs doctor says which of them do not answer",
}
