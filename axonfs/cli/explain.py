"""`axonfs explain`: which programs wait for a mount, for what, since when, and what to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from axonfs.cli.kernel_side import kernel_side
from axonfs.cli.mount_state import LiveState
from axonfs.cli.options import LocalPath, cache_option, json_option, make_target
from axonfs.cli.output import clock, echo, echo_json, note
from axonfs.errors import AxonError
from axonfs.names import printable
from axonfs.units import counted, size

# Files that have lines of their own, and failures that are shown of the last minutes.
MOST_FILES, MOST_FAILURES, RECENT = 20, 3, 600.0


@click.command
@click.argument("mountpoint", required=False, type=LocalPath("the mountpoint"))
@cache_option
@json_option
def explain(mountpoint: Path | None, cache: str | None, as_json: bool) -> None:
    """Say which programs wait for a mount, for what, and what to do.

    For each file that is waited for: the program, the chunk, the source, what is done now and since
    when. Also what waited last, and what is not well: sources that do not answer, site caches that
    are set aside, the cache's disk. MOUNTPOINT defaults as for `axonfs status`. If the mount does
    not answer, it says what the kernel and /proc tell of it, and exits with 1.
    """
    live = LiveState(mountpoint, make_target((), cache))
    if live.owner is not None:
        note(f"this is {live.owner}'s mount")
    try:
        state = live.read()
    except AxonError as exc:
        _unanswered(live, exc, as_json=as_json)
        raise
    with live.doubted():
        if as_json:
            echo_json({"mountpoint": state.get("mountpoint"), "answers": True, **_shown(state)})
            return
        for line in _lines(state):
            echo(line)


def _unanswered(live: LiveState, exc: AxonError, *, as_json: bool) -> None:
    told = kernel_side(live.mountpoint)
    if as_json:
        place = str(live.mountpoint)
        echo_json({"mountpoint": place, "answers": False, "error": exc.facts(), "kernel": told})
    for name, text in told.items() if not as_json else ():
        echo(f"{name}: {text}")


def _shown(state: dict[str, Any]) -> dict[str, Any]:
    names = ("waits", "waiting", "waits_over", "waited")
    return {name: state.get(name) for name in names} | {"not_well": list(_not_well(state))}


def _lines(state: dict[str, Any]) -> Iterator[str]:
    waits = state.get("waits") or []
    if not waits:
        yield "nothing waits" + _last(state)
    files: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for wait in waits:
        files.setdefault((str(wait["path"]), str(wait["cause"])), []).append(wait)
    for number, readers in enumerate(files.values()):
        if number == MOST_FILES:
            yield f"… and {counted(len(files) - MOST_FILES, 'more file')}"
            break
        yield from _of_file(readers)
    if (more := state.get("waiting", 0) - len(waits)) > 0:
        yield f"{more} more requests wait"
    if waited := _waited(state.get("waited") or {}):
        yield f"waited since {_began(state)}: {waited}"
    yield from (f"not well: {text}" for text in _not_well(state))


def _of_file(readers: list[dict[str, Any]]) -> Iterator[str]:
    """The lines about the programs that wait for one file, for one cause."""
    first = readers[0]
    yield f"{who(first)} has waited {first['seconds']:.1f} s: {_request(first)}"
    if others := {who(wait) for wait in readers[1:]} - {who(first)}:
        named = ", ".join(sorted(others)[:3]) + (", …" if len(others) > 3 else "")
        yield f"  {counted(len(readers) - 1, 'more request')} for it, of {named}"
    elif len(readers) > 1:
        yield f"  {counted(len(readers) - 1, 'more request')} of it for the same file"
    chunk = f"chunk {first['chunk']} " if first["chunk"] is not None else ""
    spec = f"of {first['spec']} " if first["spec"] else ""
    source = f"from {first['source']}" if first["source"] else ""
    cache = f" through the site cache {first['cache']}" if first["cache"] else ""
    if parts := f"{chunk}{spec}{source}{cache}".strip():
        yield f"  {parts}"
    yield f"  {first['cause']}: {first['text']}"
    yield f"  → {first['hint']}"


def who(wait: dict[str, Any]) -> str:
    """The program that waits."""
    if not wait["pid"]:
        return "a program without a known pid"
    return f"{wait['program'] or 'a program'} (pid {wait['pid']})"


def _request(wait: dict[str, Any]) -> str:
    if wait["operation"] != "read":
        return f"{wait['operation']} of {wait['path']}"
    return f"read of {size(wait['size'])} at byte {wait['offset']} of {wait['path']}"


def _began(state: dict[str, Any]) -> str:
    """When the worker began, which counts waits from then on."""
    return clock(state.get("since") or 0.0)


def _last(state: dict[str, Any]) -> str:
    over = state.get("waits_over")
    if not over:
        return f", and nothing has waited as long as a second since {_began(state)}"
    last = over[-1]
    return (
        f"; last {who(last)} waited {last['seconds']:.1f} s for {last['path']}, until"
        f" {clock(last['ended'])}: {last['cause']}, {last['text']}"
    )


def _waited(seconds: dict[str, float]) -> str:
    """The causes that cost most, with their seconds."""
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    return ", ".join(f"{cause} {amount:.1f} s" for cause, amount in ordered if amount >= 0.1)


def summary(state: dict[str, Any]) -> list[str]:
    """What `axonfs status` says of waits: one line for each of the longest."""
    waits = state.get("waits") or []
    lines = [
        f"{who(wait)}, {wait['seconds']:.1f} s, {wait['operation']} of {wait['path']}:"
        f" {wait['cause']}, {wait['text']}"
        for wait in waits[:3]
    ]
    more = state.get("waiting", 0) - len(lines)
    return [*lines, f"{more} more; see axonfs explain"] if more > 0 else lines


def _not_well(state: dict[str, Any]) -> Iterator[str]:
    """What may make programs wait or fail, whether one waits now or not."""
    if state.get("offline"):
        yield "the mount is offline: what is not in the cache fails at once, and nothing is sent"
    disk = state.get("disk") or {}
    if disk.get("fault"):
        what = f"the cache's disk fails since {clock(disk['since'])}: {disk['fault']}"
        yield f"{what}; what it does not take is fetched again for each read"
    for item in (*(state.get("registries") or []), *(state.get("hubs") or [])):
        if item.get("error"):
            yield f"{item['url']} does not answer since {clock(item['since'])}: {item['error']}"
        for cache in item.get("caches") or []:
            if cache["fault"] is not None:
                yield f"the site cache {cache['url']} is set aside: {cache['fault']}"
    if fault := state.get("settings_fault"):
        yield f"the previous settings are in use: {fault}"
    if items := state.get("quarantined"):
        yield f"{counted(len(items), 'object')} had wrong bytes and is not served: axonfs status"
    if shortage := state.get("cache_shortage"):
        yield str(shortage)
    yield from _failures(state)


def _failures(state: dict[str, Any]) -> Iterator[str]:
    since = time.time() - RECENT
    recent = [item for item in state.get("failures") or [] if item["time"] >= since]
    for item in recent[-MOST_FAILURES:]:
        yield f"a program got an error {clock(item['time'])}: {printable(item['message'], 1000)}"
