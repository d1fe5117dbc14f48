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
from contextlib import suppress
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


def parts(mountpoint: Path | None, cache: str | None) -> list[Part]:
    """The parts of a bundle about one mount, or about all that there is."""
    options = ["--cache", cache] if cache else []
    holders = chosen(mountpoint, cache)
    places = [mountpoint] if mountpoint else [holder.mountpoint for holder in holders]
    of_mounts = [
        part
        for number, place in enumerate(places or [None], 1)
        for part in _of_mount(place, cache, number if len(places) > 1 else None)
    ]
    return [
        *of_mounts,
        Part("doctor.txt", "axonfs doctor", lambda: _axonfs(["doctor", *options])),
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


def _of_mount(mountpoint: Path | None, cache: str | None, number: int | None) -> Iterator[Part]:
    """What commands say of a mount; of several each has a number."""
    place = [str(mountpoint)] if mountpoint else []
    place += ["--cache", cache] if cache else []
    tail, of = ("", "") if number is None else (f"-{number}", f" {mountpoint}")

    def part(name: str, what: str, make: Callable[[], str]) -> Part:
        stem, ending = os.path.splitext(name)
        return Part(f"{stem}{tail}{ending}", what + of, make)

    yield part("status.json", "axonfs status --json", lambda: _axonfs(["status", *place, "--json"]))
    what = "axonfs explain: what readers wait for"
    yield part("explain.txt", what, lambda: _axonfs(["explain", *place]))
    what = "axonfs top, with rates"
    yield part("top.txt", what, lambda: _axonfs(["top", *place, "-n", "1"]))
    yield part("log.txt", "the last lines of the log", lambda: _log(place, cache))


def chosen(mountpoint: Path | None, cache: str | None) -> list[Running]:
    """The holder of the mount; without a mountpoint that of the configured cache, as for `axonfs
    status`, or else all that this user may inspect."""
    found = running()
    if mountpoint is not None:
        return [holder for holder in found if holder.mountpoint == mountpoint]
    wanted = _configured(cache)
    return [holder for holder in found if holder.cache == wanted] or found


def _configured(cache: str | None) -> Path | None:
    """The cache that commands use. It is not touched."""
    with suppress(AxonError):  # settings.json says what is wrong with them
        return Path(os.path.abspath(cache or load().cache))
    return None


def _log(place: list[str], cache: str | None) -> str:
    """The log of the mount; if that has ended, of the cache."""
    lines = ["--lines", str(LOG_LINES)]
    try:
        return _axonfs(["logs", *place, *lines])
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
    got, why = [], ""
    for pid in workers:
        try:
            got.append(f"==== worker {pid}\n{stacks.ask(pid)}")
        except (AxonError, OSError) as exc:
            why = str(exc)
    if why:
        raise NotMadeError(why, "\n".join(got))
    return "\n".join(got)


def _traces(holders: Iterable[Running], cache: str | None) -> str:
    known = _configured(cache)
    caches = {*(holder.cache for holder in holders), *([known] if known else [])}
    files = sorted(
        (file for each in caches for file in (each / TRACES).glob("*.trace")),
        key=lambda file: file.name,
    )
    files = [*files[-_TRACES:], *(each for each in _recording(holders) if each not in files)]
    shown = (f"==== {file}\n{_axonfs(['trace', 'show', str(file)])}" for file in files)
    return "\n".join(shown) or "there are none"


def _recording(holders: Iterable[Running]) -> Iterator[Path]:
    """The traces that mounts record now, wherever they are."""
    for holder in holders:
        with suppress(NotMadeError, ValueError, LookupError, TypeError):
            state = json.loads(_axonfs(["status", str(holder.mountpoint), "--json"]))
            yield Path(state["trace"]["file"])


def _dmesg() -> str:
    lines = _program(["dmesg", "--kernel", "--ctime"]).splitlines()
    kept = [line for line in lines if any(word in line.lower() for word in _FUSE_LINES)]
    return "\n".join(kept) or "the kernel says nothing of FUSE or of memory"
