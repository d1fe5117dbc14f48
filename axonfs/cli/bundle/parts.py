"""The files of a bundle: what each is, and how it is made. Each may fail without the others.

What asks a mount is a command of AxonFS in a process of its own, for a limited time. Blocking.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from axonfs.cli.bundle import facts
from axonfs.client.apart import run_apart
from axonfs.daemon import stacks
from axonfs.daemon.holders import Running, running
from axonfs.errors import AxonError
from axonfs.settings.settings import load
from axonfs.trace.recorder import TRACES

SECONDS = 45.0  # for all of it: the parts are made at the same time
_COMMAND_SECONDS = 30.0
_MOST_OUTPUT = 32 << 20
_LITTLE = 1 << 20
LOG_LINES = 100_000
_TRACES = 3
_FUSE_LINES = ("fuse", "axonfs", "oom", "out of memory", "hung task", "blocked for more")


class NotMadeError(Exception):
    """A part could not be made; the text says why, and `got` what there is of it."""

    def __init__(self, why: str, got: str = "") -> None:
        super().__init__(why)
        self.got = got


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the bundle. `make` returns its text or raises an exception that says why not."""

    name: str
    what: str
    make: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Made:
    """A part that was made, or `why` it was not; then `text` is what there is of it."""

    part: Part
    text: str
    why: str = ""


def parts(mountpoint: Path | None, cache: str | None, commands: Iterable[str]) -> list[Part]:
    """The parts of a bundle about one mount, or about all that there is.

    Args:
        commands: the names of AxonFS's commands.
    """
    place = [str(mountpoint)] if mountpoint else []
    options = ["--cache", cache] if cache else []
    holders = chosen(mountpoint)
    known = set(commands)
    asked = [
        ("status.json", "axonfs status --json", ["status", *place, *options, "--json"]),
        ("explain.txt", "axonfs explain: what readers wait for", ["explain", *place, *options]),
        ("top.txt", "axonfs top, with rates", ["top", *place, *options, "-n", "1"]),
        ("doctor.txt", "axonfs doctor", ["doctor", *options]),
    ]
    return [
        *(Part(name, what, lambda c=c: _axonfs(c)) for name, what, c in asked if c[0] in known),  # type: ignore[misc]
        Part("log.txt", "the last lines of the log", lambda: _log(place, cache)),
        Part("settings.json", "the settings of commands, and their origins", _settings),
        Part("versions.txt", "versions of AxonFS, Python, kernel and libraries", facts.versions),
        Part("environment.txt", "variables; of secrets only the name", _environment),
        Part("kernel.txt", "FUSE connections, limits, memory, pressure", facts.kernel),
        Part("mountinfo.txt", "what is mounted", facts.mountinfo),
        Part(
            "libfuse.txt", "fusermount3 --version", lambda: _program(["fusermount3", "--version"])
        ),
        Part("disk.txt", "the file systems of the caches", lambda: _disk(holders, cache)),
        Part("processes.txt", "holders and workers", lambda: _processes(holders)),
        Part("stacks.txt", "where each Python thread of the worker is", lambda: _stacks(holders)),
        Part("traces.txt", "the newest traces, in short", lambda: _traces(holders, cache)),
        Part("dmesg.txt", "what the kernel says of FUSE and of memory", _dmesg),
    ]


def chosen(mountpoint: Path | None) -> list[Running]:
    """The holders of the mount, or all that this user may inspect."""
    found = running()
    return [holder for holder in found if mountpoint in (None, holder.mountpoint)]


def _log(place: list[str], cache: str | None) -> str:
    """The log of the mount; if that has ended, of the cache."""
    lines = ["--lines", str(LOG_LINES)]
    try:
        return _axonfs(["logs", *place, *(["--cache", cache] if cache else []), *lines])
    except NotMadeError:
        if not place:
            raise
        known = cache or str(load().cache)
        return f"The log of {known}:\n" + _axonfs(["logs", "--cache", known, *lines])


def made(wanted: Sequence[Part], seconds: float = SECONDS) -> Iterator[Made]:
    """Each part, in its order; one that takes too long is given up."""
    results: dict[str, Made] = {}
    threads = []
    for part in wanted:
        thread = threading.Thread(target=_into, args=(results, part), daemon=True)
        thread.start()
        threads.append(thread)
    deadline = time.monotonic() + seconds
    for part, thread in zip(wanted, threads, strict=True):
        thread.join(max(deadline - time.monotonic(), 0))
        yield results.get(part.name) or Made(part, "", f"it took more than {seconds:.0f} s")


def _into(results: dict[str, Made], part: Part) -> None:
    try:
        results[part.name] = Made(part, part.make())
    except NotMadeError as exc:
        results[part.name] = Made(part, exc.got, str(exc))
    except Exception as exc:  # a bug in one part must not cost the others
        results[part.name] = Made(part, "", f"{type(exc).__name__}: {exc}")


def _axonfs(command: Sequence[str]) -> str:
    """The output of a command of AxonFS.

    Exit 1 without a message is an answer: a check of doctor failed, or nothing is mounted.
    """
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "120"}
    env.pop("AXONFS_DEBUG", None)
    return _program([sys.executable, "-m", "axonfs", *command], env=env)


def _program(command: Sequence[str], *, env: dict[str, str] | None = None) -> str:
    try:
        done = run_apart(command, _COMMAND_SECONDS, _MOST_OUTPUT, env)
    except OSError as exc:
        raise NotMadeError(f"{command[0]}: {exc.strerror}") from exc
    got, said = _text(done.out), _text(done.err).strip()
    if done.code is None:
        raise NotMadeError(f"it did not end within {_COMMAND_SECONDS:.0f} s", got)
    last = said.rpartition("\n")[2]
    if not got or (done.code and last.startswith("axonfs: ")):
        raise NotMadeError(last.removeprefix("axonfs: ") or f"exit code {done.code}", got)
    return got


def _text(output: bytes) -> str:
    return output.decode(errors="replace")


def _libfuse() -> str:
    return _program(["fusermount3", "--version"])


def _settings() -> str:
    return json.dumps(facts.settings(), indent=2)


def _environment() -> str:
    return facts.variables_shown(os.environ)


def _disk(holders: Iterable[Running], cache: str | None) -> str:
    """In a child process for each: a file system that hangs costs only its own part."""
    known = dict.fromkeys([*(str(holder.cache) for holder in holders), *([cache] if cache else [])])
    if not known:
        known = {str(load().cache): None}
    commands = [
        command
        for place in known
        for command in (["df", "-PTh", place], ["df", "-Pi", place], ["stat", "-f", place])
    ]
    return "\n".join(map(_shown, commands))


def _shown(command: Sequence[str]) -> str:
    done = run_apart(command, 5, _LITTLE)
    late = "it does not answer\n" if done.code is None else ""
    return f"$ {' '.join(command)}\n{_text(done.out)}{_text(done.err)}{late}"


def _processes(holders: Sequence[Running]) -> str:
    if not holders:
        raise NotMadeError("no mount is there whose processes this user may inspect")
    return facts.processes(holders)


def _stacks(holders: Iterable[Running]) -> str:
    workers = [pid for holder in holders for pid in holder.workers]
    if not workers:
        raise NotMadeError("no worker is there that this user may inspect")
    try:
        return "\n".join(f"==== worker {pid}\n{stacks.ask(pid)}" for pid in workers)
    except (AxonError, OSError) as exc:
        raise NotMadeError(str(exc)) from exc


def _traces(holders: Iterable[Running], cache: str | None) -> str:
    caches = [*(holder.cache for holder in holders), *([Path(cache)] if cache else [])]
    files = sorted({file for each in caches for file in (each / TRACES).glob("*.trace")})
    shown = (f"==== {file}\n{_axonfs(['trace', 'show', str(file)])}" for file in files[-_TRACES:])
    return "\n".join(shown) or "there are none"


def _dmesg() -> str:
    lines = _program(["dmesg", "--kernel", "--ctime"]).splitlines()
    kept = [line for line in lines if any(word in line.lower() for word in _FUSE_LINES)]
    return "\n".join(kept) or "the kernel says nothing of FUSE or of memory"
