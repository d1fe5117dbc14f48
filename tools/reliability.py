"""Print the figures of a run of tools/chaos as a table, and write them into docs/reliability.md.

    python tools/reliability.py FIGURES [--write]

FIGURES has one JSON object per line: the name of a test and its counts (tests/support/profile.py).
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs/reliability.md"
BEGIN, END = "<!-- figures of tools/chaos: begin -->", "<!-- figures of tools/chaos: end -->"

Figures = Mapping[str, float]
GIB = 1 << 30

# The rows of the table: by test, a title and a function that makes the text.
ROWS: Mapping[str, tuple[str, Callable[[Figures], str]]] = {
    "kill_cold": (
        "Workers ended in the middle of cold reads",
        lambda f: (
            f"{f['rounds']:,.0f} rounds: {f['kills']:,.0f} SIGKILL, {f['restarts']:,.0f} restarts;"
            f" {f['chunks']:,.0f} chunks read, none of them asked for again;"
            f" {f['sent_twice']:,.0f} were on their way and sent twice"
        ),
    ),
    "kill_mixed": (
        "Workers ended in the middle of pins, unpins, evictions and checks",
        lambda f: (
            f"{f['rounds']:,.0f} rounds: {f['kills']:,.0f} SIGKILL, {f['restarts']:,.0f} restarts;"
            f" {f['chunks']:,.0f} chunks read, all right; {f['result']:,.0f} commands answered,"
            f" {f.get('cut_off', 0):,.0f} cut off with their worker"
        ),
    ),
    "kill_mount": (
        "Whole mounts killed in the middle of cold reads",
        lambda f: f"{f['rounds']:,.0f} rounds; {f['chunks']:,.0f} chunks, none fetched again",
    ),
    "kill_publisher": (
        "Publishers killed",
        lambda f: (
            f"{f['steps']:,.0f} times, once before each change they make;"
            " the registry was sound each time"
        ),
    ),
    "kill_publisher_s3": (
        "Publishers to an object store killed",
        lambda f: (
            f"{f['steps']:,.0f} times, once before each request that writes;"
            " the registry was sound each time"
        ),
    ),
    "kill_publisher_oci": (
        "Publishers to an OCI registry killed",
        lambda f: (
            f"{f['steps']:,.0f} times, once before each request that writes;"
            " the tag named whole files each time"
        ),
    ),
    "kill_publisher_http": (
        "Publishers to a server killed",
        lambda f: (
            f"{f['steps']:,.0f} times, once before each request that writes;"
            " the registry was sound each time"
        ),
    ),
    "kill_server": (
        "Servers killed while somebody publishes",
        lambda f: (
            f"{f['steps']:,.0f} times, once before each change they make;"
            " the registry was sound each time"
        ),
    ),
    "kill_publisher_anytime": (
        "Publishers killed at any moment",
        lambda f: f"{f['rounds']:,.0f} rounds; the registry was sound each time",
    ),
    "kill_store": (
        "Stores killed while chunks land and go",
        lambda f: f"{f['rounds']:,.0f} rounds; all that the index said was there, was",
    ),
    "power_loss": (
        "Power lost while a cache was filled",
        lambda f: (
            f"{f['rounds']:,.0f} caches of pages from several moments: every byte right,"
            f" {f['fetched']:,.0f} chunks fetched again, {f['kept']:,.0f} that the index knew and"
            " the disk had kept"
        ),
    ),
    "lying_origin": (
        "An origin that lies or fails",
        lambda f: (
            f"{f['requests']:,.0f} requests, {f['faults']:,.0f} faults of {f['kinds']:,.0f} kinds;"
            f" {f['chunks']:,.0f} chunks read right, {f['errnos']:,.0f} reads with a documented"
            " errno; no descriptor, thread, connection or backing id left behind"
        ),
    ),
    "interrupts": (
        "Readers that got a signal at any moment",
        lambda f: (
            f"{f['rounds']:,.0f} readers, {f['signalled']:,.0f} of them before they were done,"
            f" {f['restarts']:,.0f} restarts meanwhile; no handle, inode or descriptor left behind"
        ),
    ),
    "silent_source": (
        "A silent source beside a healthy one",
        lambda f: (
            f"{f['rounds']:,.0f} rounds of {f['readers']:,.0f} readers and {f['lookups']:,.0f}"
            f" lookups that wait for it; beside them {f['healthy']:,.0f} reads of the healthy one"
            f" and {f['local']:,.0f} of local files, half of them in {1000 * f['median']:,.0f} ms"
            f" and the slowest in {f['slowest']:.1f} s, at a deadline of {f['deadline']:,.0f} s;"
            " each time the first reader after the source answered again had its bytes"
        ),
    ),
    "machine": (
        "A mount against plain bytes, in any order",
        lambda f: (
            f"{f['examples']:,.0f} histories, {f['reads']:,.0f} reads and mappings,"
            f" {f['deaths']:,.0f} deaths and restarts"
        ),
    ),
    "many_readers": (
        "Readers of four times what the cache holds",
        lambda f: (
            f"{f['readers']:,.0f} readers for {f['seconds']:,.0f} s: {f['chunks'] / 1024:,.1f} GiB"
            f" read, {f['fetched'] / GIB:,.1f} GiB fetched; {f['early_mib_per_s']:,.0f} MiB/s in"
            f" the first third, {f['late_mib_per_s']:,.0f} MiB/s in the last; the worker took at"
            f" most {f['worker_mib']:,.0f} MiB, the holder {f['holder_mib']:,.0f} MiB"
        ),
    ),
    "descriptors": (
        "A mount short of descriptors",
        lambda f: (
            f"{f['files']:,.0f} files open at a time while it may have {f['least']:,.0f} or a few"
            f" more; {f['reads']:,.0f} reads under {f['rounds']:,.0f} limits, all right"
        ),
    ),
    "fuzz": (
        "Parsers given invalid input",
        lambda f: f"{f['parsers']:,.0f} parsers, {f['inputs']:,.0f} inputs",
    ),
    "control": (
        "Invalid requests on the control socket of a live mount",
        lambda f: f"{f['requests']:,.0f} requests",
    ),
    "native": (
        "Reads of the native core under ThreadSanitizer, while chunks land and go",
        lambda f: (
            f"{f['right']:,.0f} got the right bytes, after {f['retried']:,.0f} were read anew since"
            f" a chunk went meanwhile; {f['failed']:,.0f} failed, {f['interrupted']:,.0f} were"
            f" interrupted and {f['popped']:,.0f} requests handed over when they had to be"
        ),
    ),
    "posix": (
        "System calls with the result that POSIX asks for",
        lambda f: f"{f['calls']:,.0f} calls, cold and passed through",
    ),
    "fio": (
        "fio with verification",
        lambda f: f"{f['bytes'] / GIB:,.1f} GiB read in {f['ways']:,.0f} ways, every block right",
    ),
}


def load(path: Path) -> dict[str, Figures]:
    """The figures by test; for a test with parameters, those of the last run."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line.pop("test"): line for line in lines}


def table(found: Mapping[str, Figures]) -> str:
    """A Markdown table of the tests that ran."""
    rows = [
        f"| {what} | {say(found[test])} |" for test, (what, say) in ROWS.items() if test in found
    ]
    return "\n".join(["| what was done | how often, and what came of it |", "|---|---|", *rows])


def machine() -> str:
    """The seed and the machine of the figures."""
    seed = os.environ.get("AXONFS_CHAOS_SEED", "1")
    kernel = platform.release().partition("-")[0]
    return f"Seed {seed}, Linux {kernel}, {os.cpu_count()} cores. Nothing was lost."


def written(document: str, found: Mapping[str, Figures]) -> str:
    """The document with new figures between its markers.

    Raises:
        ValueError: the document has no markers, or figures of a test are missing.
    """
    if missing := [test for test in ROWS if test not in found]:
        raise ValueError(f"figures are missing: {', '.join(missing)}")
    head, _, rest = document.partition(BEGIN)
    _, marker, tail = rest.partition(END)
    if not marker:
        raise ValueError("the document has no markers")
    return f"{head}{BEGIN}\n\n{machine()}\n\n{table(found)}\n\n{END}{tail}"


def main(path: str, *options: str) -> None:
    found = load(Path(path))
    print(table(found))
    if "--write" in options:
        DOCUMENT.write_text(written(DOCUMENT.read_text(), found))


if __name__ == "__main__":
    main(*sys.argv[1:])
