"""What `axonfs top` shows of one moment: loads, waits, sources, files and failures, with rates.

It reads the state that `status --json` has. Another user's mount may say anything there, and a
worker of another version may leave something out, so a value of the wrong type counts as missing.
No text is printable yet. Pure, but for the clock of its caller.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from axonfs.cli.top.rates import Rates, Trend

READERS_SECONDS = 60.0  # for which a program that waited counts as a reader of a model

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wait:
    """A program that waits now for a file: `seconds` for how long, with `count` requests."""

    seconds: float
    count: int
    program: str
    pid: int
    operation: str
    spec: str
    path: str
    cause: str
    text: str
    hint: str
    source: str


@dataclass(frozen=True, slots=True)
class Load:
    """A version on its way into the cache, in bytes; `idle` is how long nothing has come.

    `kind` is pin, prefetch or read: files that programs have open and that are incomplete.
    `awaited` means that a reader waits for it now.
    """

    spec: str
    kind: str
    state: str
    path: str
    local: int
    size: int
    rate: float | None = None
    idle: float = 0.0
    by: str = ""
    awaited: bool = False

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.state in ("running", "waiting")

    @property
    def seconds_left(self) -> float:
        """As far as its rate tells; infinite if it does not."""
        if not self.rate or not self.size:
            return math.inf
        return max(self.size - self.local, 0) / self.rate


@dataclass(frozen=True, slots=True)
class Source:
    """A registry or a hub, or a site cache of the one before; `trouble` is empty if it answers."""

    name: str
    is_cache: bool
    rate: float | None
    received: int
    requests: int
    errors: Mapping[str, int]
    trouble: str
    since: float


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that programs have open; `received` bytes were read from it in `reads`."""

    path: str
    spec: str
    local: int
    size: int
    readers: int
    passed_through: bool
    read: int
    reads: int
    rate: float | None


@dataclass(frozen=True, slots=True)
class Failure:
    """A read or another operation that failed, at unix seconds `time`."""

    time: float
    message: str


@dataclass(frozen=True, slots=True)
class Moment:
    """Everything that is known of one moment."""

    time: float
    state: Item
    waits: tuple[Wait, ...]
    loads: tuple[Load, ...]
    sources: tuple[Source, ...]
    files: tuple[OpenFile, ...]
    failures: tuple[Failure, ...]
    waited: Mapping[str, float]
    fetch_trend: Trend
    wait_trend: Trend
    reads: float | None
    seconds_of_read: float

    @property
    def programs(self) -> int:
        """How many programs wait."""
        return len({wait.pid or index for index, wait in enumerate(self.waits)})


def number(item: Item, name: str) -> float:
    """A figure of the state; 0 if it is missing or no figure."""
    value = item.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return 0
    return value if 0 <= value < math.inf else 0


def whole(item: Item, name: str) -> int:
    """Like `number`, without a fraction."""
    return int(number(item, name))


def text(item: Item, name: str) -> str:
    """A text of the state; empty if it is missing."""
    value = item.get(name)
    return "" if value is None else str(value)


def part(item: Item, name: str) -> Item:
    """A mapping in the state; empty if it is missing."""
    value = item.get(name)
    return value if isinstance(value, dict) else {}


def items(item: Item, name: str) -> list[Item]:
    """A list of mappings in the state; empty if it is missing."""
    value = item.get(name)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


@dataclass
class Figures:
    """Makes a `Moment` of each state; keeps what rates and trends need."""

    _rates: Rates = field(default_factory=Rates)
    _fetch: Trend = field(default_factory=Trend)
    _waiting: Trend = field(default_factory=Trend)
    _readers: dict[str, tuple[float, str]] = field(default_factory=dict)
    _awaited: set[str] = field(default_factory=set)

    def moment(self, state: Item, now: float) -> Moment:
        """What the state says now, in unix seconds."""
        self._rates.begin(now)
        waits = _waits(items(state, "waits"))
        reads, seconds_of_read = self._reads(state)
        self._note_readers(waits, now)
        self._fetch.note(number(part(state, "fetch"), "rate"))
        moment = Moment(
            time=now,
            state=state,
            waits=tuple(waits),
            loads=tuple(self._loads(state)),
            sources=tuple(self._sources(state)),
            files=tuple(map(self._file, items(state, "open"))),
            failures=tuple(
                Failure(number(item, "time"), text(item, "message"))
                for item in reversed(items(state, "failures"))
            ),
            waited={name: number(part(state, "waited"), name) for name in part(state, "waited")},
            fetch_trend=self._fetch,
            wait_trend=self._waiting,
            reads=reads,
            seconds_of_read=seconds_of_read,
        )
        self._waiting.note(moment.programs)
        return moment

    def _note_readers(self, waits: Iterable[Wait], now: float) -> None:
        self._awaited = {wait.spec for wait in waits}
        recent = {k: v for k, v in self._readers.items() if now - v[0] < READERS_SECONDS}
        self._readers = recent | {wait.spec: (now, reader(wait)) for wait in waits if wait.program}

    def _reads(self, state: Item) -> tuple[float | None, float]:
        """Reads per second that the kernel asked for, and how long one of them took."""
        reads = part(part(state, "operations"), "read")
        if not reads:
            return None, 0.0
        rate = self._rates.note("reads", whole(reads, "count"))
        seconds = self._rates.note("seconds of reads", number(reads, "seconds"))
        return rate, seconds / rate if rate and seconds else 0.0

    def _loads(self, state: Item) -> Iterable[Load]:
        pins = [self._load(item, "pin") for item in items(state, "pinning")]
        fetched = [self._load(item, "prefetch") for item in items(part(state, "prefetch"), "loads")]
        known = {load.spec for load in (*pins, *fetched) if load.active}
        yield from pins
        yield from fetched
        for spec, files in _incomplete(state).items():
            if spec not in known:
                sums = {name: sum(whole(f, name) for f in files) for name in ("local", "size")}
                path = text(files[0], "path") if len(files) == 1 else f"{len(files)} files"
                yield self._load({"spec": spec, "path": path, **sums}, "read")

    def _load(self, item: Item, kind: str) -> Load:
        spec, state = text(item, "spec"), text(item, "state") or "running"
        key = ("load", kind, spec, whole(item, "size"))
        rate = self._rates.note(key, whole(item, "local"))
        return Load(
            spec=spec,
            kind=kind,
            state=state,
            path=text(item, "path"),
            local=whole(item, "local"),
            size=whole(item, "size"),
            rate=rate,
            idle=self._rates.idle(key),
            by=self._readers.get(spec, (0.0, ""))[1] or text(item, "trigger"),
            awaited=spec in self._awaited,
        )

    def _sources(self, state: Item) -> Iterable[Source]:
        counts = {
            (_bare(text(item, "source")), _bare(text(item, "cache"))): item
            for item in items(part(state, "fetch"), "sources")
        }
        hubs = [item for item in items(state, "hubs") if item.get("state") != "not asked"]
        for item in (*items(state, "registries"), *hubs):
            url = _bare(text(item, "url"))
            name = f"{text(item, 'name')} {url}".strip()
            yield self._source(name, counts.get((url, ""), {}), item, "error")
            for cache in items(item, "caches"):
                address = text(cache, "address")
                title = text(cache, "url") + (f" at {address}" if address else "")
                found = counts.get((url, _bare(title)), cache)
                yield self._source(title, {**cache, **found}, cache, "fault", of=url)

    def _source(
        self, name: str, counts: Item, item: Item, fault: str, of: str | None = None
    ) -> Source:
        rate = self._rates.note(("source", of, name), whole(counts, "bytes"))
        errors = part(counts, "errors")
        return Source(
            name=name,
            is_cache=of is not None,
            rate=number(counts, "rate") if "rate" in counts else rate,
            received=whole(counts, "bytes"),
            requests=whole(counts, "requests"),
            errors={str(code): whole(errors, code) for code in errors},
            trouble=text(item, fault),
            since=number(item, "since"),
        )

    def _file(self, item: Item) -> OpenFile:
        path = text(item, "path")
        return OpenFile(
            path=path,
            spec=text(item, "spec"),
            local=whole(item, "local"),
            size=whole(item, "size"),
            readers=whole(item, "handles"),
            passed_through=bool(item.get("passed_through")),
            read=whole(item, "bytes_read"),
            reads=whole(item, "reads"),
            rate=self._rates.note(("file", path), whole(item, "bytes_read")),
        )


def reader(wait: Wait) -> str:
    """`vllm (1234)`: the program that waits."""
    name = wait.program or "a program"
    return f"{name} ({wait.pid})" if wait.pid else name


def _waits(listed: list[Item]) -> list[Wait]:
    """The longest first; what one program waits for of one file, and for one cause, is one."""
    found: dict[object, Wait] = {}
    for wait in sorted(map(_wait, listed), key=lambda wait: -wait.seconds):
        key = wait.pid, wait.program, wait.operation, wait.path, wait.cause
        known = found.get(key)
        found[key] = replace(known, count=known.count + 1) if known else wait
    return list(found.values())


def _wait(item: Item) -> Wait:
    return Wait(
        seconds=number(item, "seconds"),
        count=1,
        program=text(item, "program"),
        pid=whole(item, "pid"),
        operation=text(item, "operation"),
        spec=text(item, "spec"),
        path=text(item, "path"),
        cause=text(item, "cause") or "other",
        text=text(item, "text"),
        hint=text(item, "hint"),
        source=text(item, "cache") or text(item, "source"),
    )


def _incomplete(state: Item) -> dict[str, list[Item]]:
    """The open files that lack bytes, by version."""
    found: dict[str, list[Item]] = {}
    for item in items(state, "open"):
        if whole(item, "local") < whole(item, "size"):
            found.setdefault(text(item, "spec") or text(item, "path"), []).append(item)
    return found


def _bare(url: str) -> str:
    return url.rstrip("/")
