"""A fleet of hosts starts one model: what leaves the origin, and when the last host is done.

Each host has namespaces and a line of its own, a mount with an empty cache, and nginx with the
configuration of packaging/ as one of the site caches (lan.py, fleets.py). All hosts begin at the
same moment and read the whole model in order. The ideal is the model over the slower of the
origin's line and a host's line.

A fleet is measured, then one more host, then a new host when no cache answers and the origin may
not be asked. In another fleet a quarter of the caches are killed in the middle, one sends wrong
bytes, and one stops; those two are asked for most. Last, the same hosts download the model with
curl, once. The rates are so low that two processors do not bind 32 hosts; the figures say how much
of them was used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median

from axonfs.formats.layout import object_key
from axonfs.http_client import SiteCaches, slice_key
from axonfs.http_client.caches import SLICE
from axonfs.names import parse_spec
from axonfs.publish import publish
from bench.experiment import Answer, Experiment, experiment
from bench.fixtures import MIB, scratch, usage_of, write_model
from bench.fleets import Fleet, Processors, Reading, cache_url, fleet, read, read_together, sent
from bench.lan import Host
from bench.measure import Figures, Found, rounds_of, summaries

SPEC = "bench/fleet@1.0.0"
FILES = 4
# Bits per second.
LINE, HOST_LINE = 25_000_000, 250_000_000
# Seconds without progress after which a reader gets an error.
DEADLINE = 10
# A fleet takes minutes.
ROUNDS = 3
UNLIKE = "hosts with an error or other bytes"
# Until nginx has written its log.
LOGGED_SECONDS = 1.2
# Targets. Those against direct readers are what JuiceFS has published for 12 peers and 100 GiB.
COPIES, LAST, LATE_PART, COPIES_WITH_FAULTS, PATIENT = 1.05, 1.5, 0.01, 1.3, 1.1
SOONER, EGRESS = 1 / 4.1, 0.11


@dataclass(frozen=True)
class Model:
    """The published model.

    Args:
        digest: of all its weights.
        objects: their keys and digests.
    """

    registry: Path
    size: int
    digest: str
    objects: Sequence[tuple[str, str]]

    @property
    def ideal(self) -> float:
        """The seconds that the slowest line takes for it."""
        return self.size * 8 / min(LINE, HOST_LINE)

    def unlike(self, readings: Sequence[Reading]) -> int:
        """How many readers had an error or other bytes."""
        return sum(one.error is not None or one.digest != self.digest for one in readings)

    def by_share(self, many: Fleet) -> list[Host]:
        """The hosts; those whose caches are asked for most slices come first."""
        found = SiteCaches(many.url, map(cache_url, many.hosts))
        slices = range(-(-self.size // FILES // SLICE))
        keys = [slice_key(digest, number) for _, digest in self.objects for number in slices]
        asked = Counter(str(found.order(key)[0].url) for key in keys)
        return sorted(many.hosts, key=lambda host: -asked[cache_url(host)])


def published(work: Path, size: int) -> Model:
    folder, whole = write_model(work / "model", FILES, size // FILES), hashlib.sha256()
    publish(folder, parse_spec(SPEC), work / "registry")
    objects = []
    for path in sorted(folder.glob("*.safetensors")):
        content = path.read_bytes()
        whole.update(content)
        digest = hashlib.sha256(content).hexdigest()
        objects.append((object_key(digest), digest))
    return Model(work / "registry", size, whole.hexdigest(), objects)


def falsified(model: Model, folder: Path) -> Path:
    """A copy of the registry in which every byte of the weights is another one."""
    shutil.copytree(model.registry, folder, dirs_exist_ok=True)
    for path in folder.glob("objects/sha256/*/*"):
        path.write_bytes(os.urandom(path.stat().st_size))
    return folder


def started(model: Model, work: Path, hosts: int) -> AbstractContextManager[Fleet]:
    """A fleet with empty caches and mounts: each round has a directory of its own in `work`."""
    home = Path(tempfile.mkdtemp(dir=work))
    return fleet(model.registry, home, hosts, LINE, HOST_LINE)


def together(
    many: Fleet, model: Model, via: Sequence[str], middle: Callable[[], object] = lambda: None
) -> Figures:
    """All hosts mount, then read; `middle` is called when the origin has sent half of the model."""
    mounts = many.mount(many.hosts, *options(via))
    found: dict[str, float] = {}

    def meanwhile() -> None:
        many.until_sent(model.size / 2)
        found["connections of a host"] = fmean(host.connections() for host in many.hosts)
        middle()

    with Processors() as processors:
        readings = read_together(mounts, SPEC, meanwhile)
    seconds = [one.seconds for one in readings]
    many.until_quiet()
    sent = many.sent()
    return found | {
        "copies": sent.bytes / model.size,
        "requests at the origin": sent.requests,
        "documents at the origin": sent.documents,
        "last host": max(seconds) / model.ideal,
        "first host": min(seconds) / model.ideal,
        "last host, seconds": max(seconds),
        UNLIKE: model.unlike(readings),
        "processors": processors.busy,
        "peak memory of a mount": fmean(mount.usage().peak for mount in mounts),
    }


def options(via: Sequence[str]) -> list[str]:
    return [word for url in via for word in ("--via", url)]


def of_caches(many: Fleet) -> Figures:
    """What one cache, and the busiest, sent and used."""
    time.sleep(LOGGED_SECONDS)
    answered = [sent(cache.log) for cache in many.caches]
    sizes = [one.bytes for one in answered]
    return {
        "requests of a host": sum(one.requests for one in answered) / len(many.hosts),
        "bytes of a cache": fmean(sizes),
        "bytes of the busiest cache": max(sizes),
        "peak memory of a cache": fmean(usage_of(one.process.pid).peak for one in many.caches),
        "seconds of a cache": fmean(usage_of(one.process.pid).cpu for one in many.caches),
    }


def joined(many: Fleet, model: Model) -> Figures:
    """One more host reads through the same caches."""
    before = many.sent().bytes
    [mount] = many.mount([many.join(HOST_LINE)], *options(many.urls))
    reading = read(mount, SPEC)
    many.until_quiet()
    return {
        "late host, part from the origin": (many.sent().bytes - before) / model.size,
        "late host": reading.seconds / model.ideal,
        "late host, unlike": model.unlike([reading]),
    }


def alone(many: Fleet) -> Figures:
    """A new host reads what it has listed; no cache answers, and the origin may not be asked."""
    patience = ("env", f"AXONFS_DEADLINE={DEADLINE}")
    never = (*options(many.urls), "--fallback", "never")
    [mount] = many.mount([many.join(HOST_LINE)], *never, start=patience)
    mount.weights(SPEC)
    before = many.sent().requests
    for cache in many.caches:
        cache.kill()
    reading = read(mount, SPEC)
    if reading.error is None:
        raise RuntimeError("a host read the model although no cache answers")
    return {
        "alone, errno": reading.error.errno or 0,
        "alone": reading.seconds / DEADLINE,
        "alone, requests at the origin": many.sent().requests - before,
    }


def healthy(model: Model, work: Path, hosts: int) -> Figures:
    """A fleet without faults, and what comes after it."""
    with started(model, work, hosts) as many:
        many.start_caches(many.hosts)
        found = together(many, model, many.urls)
        return {**found, **of_caches(many), **joined(many, model), **alone(many)}


def faulty(model: Model, work: Path, hosts: int) -> Figures:
    """A fleet with one cache that lies, and in the middle a quarter are killed and one stops."""
    with started(model, work, hosts) as many:
        liar, stopped, *others = model.by_share(many)
        url = many.start_liar(liar, falsified(model, work / "falsified")).url
        many.start_caches([stopped, *others])

        def middle() -> None:
            first, *rest = many.caches
            first.stall()
            for cache in rest[::4]:  # with all kinds of shares
                cache.kill()

        return together(many, model, [url, *many.urls], middle)


def direct(model: Model, work: Path, hosts: int) -> Figures:
    """The hosts download the model at the same time, without caches and mounts."""
    with started(model, work, hosts) as many:
        seconds = many.download([key for key, _ in model.objects])
        last = {"last host": seconds / model.ideal, "last host, seconds": seconds}
        return {**last, "copies": many.sent().bytes / model.size}


def judge(trial: Experiment, hosts: int, found: Found) -> None:
    """The answers."""
    name = f"fleet of {hosts}"

    def answer(what: str, against: str, way: str, figure: str, unit: str, target: float) -> None:
        trial.answer(Answer(what, against, median(found[way][figure]), unit, target))

    def compared(what: str, figure: str, target: float, unit: str) -> None:
        value = median(found["healthy"][figure]) / median(found["direct"][figure])
        trial.answer(Answer(what, f"{hosts} direct readers", value, unit, target))

    whole, line = "the model's bytes", "the model over the slowest line"
    answer(f"{name}, from the origin", whole, "healthy", "copies", "×", COPIES)
    compared(f"{name}, from the origin", "copies", EGRESS, "× bytes")
    answer(f"{name}, last host", line, "healthy", "last host", "× time", LAST)
    compared(f"{name}, last host", "last host", SOONER, "× time")
    late, faults = f"{name}, one more host", f"{name}, caches fail"
    part = "late host, part from the origin"
    answer(f"{late}, from the origin", whole, "healthy", part, "×", LATE_PART)
    answer(f"{faults}, from the origin", whole, "faulty", "copies", "×", COPIES_WITH_FAULTS)
    answer(f"{faults}, errors or other bytes", "–", "faulty", UNLIKE, "hosts", 0)
    silent = f"{name}, no cache, fallback never"
    answer(f"{silent}, error after", "the deadline", "healthy", "alone", "× time", PATIENT)
    requests = "alone, requests at the origin"
    answer(f"{silent}, at the origin", "–", "healthy", requests, "requests", 0)


def main() -> None:
    with experiment("fleet", __doc__, quick_rounds=1) as trial, scratch() as work:
        hosts, size = trial.size(8, 32), trial.size(64 * MIB, 128 * MIB)
        model = published(work, size)
        ways = {"healthy": healthy, "faulty": faulty}
        found = rounds_of(
            {name: partial(way, model, work, hosts) for name, way in ways.items()},
            min(trial.rounds, ROUNDS),
        )
        found |= rounds_of({"direct": partial(direct, model, work, hosts)}, 1)
        lines = {"bits per second of the origin's line": LINE, "of a host's line": HOST_LINE}
        trial.figures |= {"hosts": hosts, "bytes": size, **lines, **summaries(found)}
        judge(trial, hosts, found)


if __name__ == "__main__":
    main()
