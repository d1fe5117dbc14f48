"""The metrics of a mount, made of its state.

Pure. The state is what `status --json` shows; `Facts` are what is found beside it, in other threads
than the event loop's. A state of another version may lack keys: then those metrics are absent.
docs/operations.md lists all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from axonfs.observe.family import Distribution, Family, family

State = Mapping[str, Any]
# Upper bounds of the buckets of reads, in seconds: 64 µs, and four times as much up to 67 s. The
# state has every power of two; more series would cost more than they tell.
BOUNDS = tuple((1 << power) / 1_000_000 for power in range(6, 28, 2))
# Answers that say nothing is wrong: no such name or attribute, not needed, interrupted.
ORDINARY = frozenset({"ENOENT", "ENODATA", "ENOSYS", "EOPNOTSUPP", "EINTR"})
# Errors that count from 0 on: of a series that begins with 1, Prometheus sees no increase.
WATCHED = ("EACCES", "EIO", "ENETUNREACH", "EPERM", "ESTALE", "ETIMEDOUT")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is not in the state.

    Args:
        lag: how late the event loop was.
        failed: whether this worker replaced one that failed.
        pins: how many are complete, and how many are not.
        disk: bytes of the cache's disk, and those that are free; None if it does not say.
    """

    lag: Distribution
    failed: bool = False
    pins: Mapping[str, int] | None = None
    disk: tuple[int, int] | None = None


def silent_families(seconds: float) -> list[Family]:
    """What can be said while the event loop does not answer."""
    return [
        family("gauge", "answering", _ANSWERING, 0),
        family("gauge", "event_loop_silent_seconds", _SILENT, seconds),
    ]


_ANSWERING = "1 if the event loop of the mount answers; while it does not, most metrics are absent."
_SILENT = "For how long the event loop has not answered."


def families_of(state: State, facts: Facts) -> list[Family]:
    """All metrics of a mount that answers; those of which nothing is known have no samples."""
    parts = (_mount, _operations, _waits, _sources, _fetch, _ahead, _cache, _upkeep)
    return [one for part in parts for one in part(state, facts)]


def _mount(state: State, facts: Facts) -> Iterator[Family]:
    version, place = state.get("version"), state.get("mountpoint")
    text = "The mount; the value is 1."
    yield family("info", "mount", text, {(version, place): 1}, "version", "mountpoint")
    yield family("gauge", "answering", _ANSWERING, 1)
    yield family("gauge", "event_loop_silent_seconds", _SILENT, 0)
    text = "How late the event loop's beats were, two a second."
    yield family("histogram", "event_loop_lag_seconds", text, {(): facts.lag})
    text = "Worker processes that began, the first one too."
    yield family("counter", "worker_starts", text, 1)
    text = "Workers that were killed or failed, and were replaced."
    yield family("counter", "worker_failures", text, int(facts.failed))
    text = "Since when this worker answers, in unix seconds."
    yield family("gauge", "worker_start_time_seconds", text, state.get("since"))
    text = "1 if the config file is invalid, so that earlier settings are in use."
    yield family("gauge", "settings_fault", text, _flag(state.get("settings_fault")))


def _operations(state: State, facts: Facts) -> Iterator[Family]:
    known = state.get("operations") or {}
    reads = _kinds(known, "read")
    text = "Reads that the mount answered: from the cache at once, or cold, after a wait."
    samples = {kind: _distribution(row) for kind, row in reads.items()}
    yield family("histogram", "read_duration_seconds", text, samples, "kind")
    others = {
        name: Distribution(row["count"], row["seconds"])
        for name, row in known.items()
        if name != "read"
    }
    text = "Other requests of the kernel, until the answer."
    yield family("summary", "operation_duration_seconds", text, others, "operation")
    opens = {kind: row["count"] for kind, row in _kinds(known, "open").items()}
    text = "Opens; of a file that is passed through the kernel reads the bytes itself, unseen."
    yield family("counter", "opens", text, opens, "kind")
    errors = dict.fromkeys(product(("open", "read"), WATCHED), 0)
    errors |= {
        (name, error): number
        for name, row in known.items()
        for error, number in (row.get("errors") or {}).items()
        if error not in ORDINARY
    }
    text = "Requests that failed, but for names that do not exist and the like."
    yield family("counter", "errors", text, errors, "operation", "errno")
    text = "Open files that the kernel reads itself."
    passed = (state.get("connection") or {}).get("passed_through")
    yield family("gauge", "files_passed_through", text, passed)
    yield family("gauge", "open_handles", "Opens that are not closed yet.", state.get("handles"))
    yield family("gauge", "inodes", "Inodes that the kernel knows.", state.get("inodes"))


def _kinds(known: Mapping[str, Any], operation: str) -> Mapping[str, Any]:
    return (known.get(operation) or {}).get("kinds") or {}


def _distribution(row: Mapping[str, Any]) -> Distribution:
    buckets = dict.fromkeys(BOUNDS, 0.0)
    for text, number in row["buckets"].items():
        bound = next((bound for bound in BOUNDS if float(text) <= bound), None)
        if bound is not None:
            buckets[bound] += number
    return Distribution(row["count"], row["seconds"], buckets)


def _waits(state: State, facts: Facts) -> Iterator[Family]:
    waits = state.get("waits") or ()
    text = "Seconds that requests have waited, by cause."
    yield family("counter", "wait_seconds", text, state.get("waited") or {}, "cause")
    known = dict.fromkeys(state.get("waited") or {}, 0)
    now = Counter(str(one["cause"]) for one in waits)
    text = "Requests that wait now, by cause; of more than 100 those that wait longest."
    yield family("gauge", "waits", text, {**known, **now}, "cause")
    text = "For how long the longest of them has waited."
    longest = max((one["seconds"] for one in waits), default=0.0)
    yield family("gauge", "longest_wait_seconds", text, longest)


def _sources(state: State, facts: Facts) -> Iterator[Family]:
    listed = [*(state.get("registries") or ()), *(state.get("hubs") or ())]
    up = {one["url"]: int(one["state"] == "ok") for one in listed if one["state"] != "not asked"}
    text = "1 if a registry or hub answers, with bytes of files too; absent until it was asked."
    yield family("gauge", "source_up", text, up, "source")
    caches = {
        (one["url"], _name(cache)): int(cache.get("fault") is None)
        for one in listed
        for cache in one.get("caches") or ()
    }
    text = "1 if a site cache is used, 0 if it is set aside because it failed."
    yield family("gauge", "site_cache_up", text, caches, "source", "cache")
    rows = (state.get("fetch") or {}).get("sources") or ()
    for name, text in (
        ("bytes", "Bytes of files that came from a source, or from its site cache."),
        ("requests", "Requests for bytes of files."),
    ):
        figures = {_row(row): row.get(name, 0) for row in rows}
        name = "received_bytes" if name == "bytes" else name
        yield family("counter", f"source_{name}", text, figures, "source", "cache")
    errors = {
        (*_row(row), error): number
        for row in rows
        for error, number in (row.get("errors") or {}).items()
    }
    text = "Requests for bytes that failed, by HTTP status or errno."
    yield family("counter", "source_errors", text, errors, "source", "cache", "error")


def _name(cache: Mapping[str, Any]) -> str:
    address = cache.get("address")
    return f"{cache['url']} at {address}" if address else str(cache["url"])


def _row(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row.get("source") or ""), str(row.get("cache") or "")


def _fetch(state: State, facts: Facts) -> Iterator[Family]:
    fetch = state.get("fetch") or {}
    text = "Bytes that landed in the cache, by what they were fetched for."
    yield family("counter", "landed_bytes", text, fetch.get("landed") or {}, "priority")
    text = "Bytes that were copied from a place on this machine."
    yield family("counter", "copied_bytes", text, fetch.get("copied"))
    text = "Slow requests whose rest was asked for anew."
    yield family("counter", "hedges", text, fetch.get("hedged"))
    jobs = {"running": fetch.get("in_flight", 0), "queued": fetch.get("queued", 0)}
    yield family("gauge", "jobs", "Requests under way and waiting.", jobs, "state")
    text = "Streams for bulk work of the origin that has the most."
    yield family("gauge", "streams", text, fetch.get("streams"))
    text = "The limit on bytes per second; 0 is none."
    yield family("gauge", "bandwidth_limit_bytes", text, fetch.get("bandwidth"))


def _ahead(state: State, facts: Facts) -> Iterator[Family]:
    ahead = (state.get("fetch") or {}).get("readahead") or {}
    for name, text in (
        ("asked", "Bytes that were asked for ahead of readers."),
        ("used", "Those of them that readers came to; of files that are whole, all."),
        ("wasted", "Those of them that no reader had come to when the file was closed."),
    ):
        yield family("counter", f"readahead_{name}_bytes", text, ahead.get(name))
    prefetch = state.get("prefetch") or {}
    states = Counter(one["state"] for one in prefetch.get("loads") or ())
    loads = {state: states[state] for state in ("waiting", "running")}
    yield family("gauge", "prefetches", "Prefetches that wait or run.", loads, "state")
    ended = prefetch.get("ended") or {}
    yield family("counter", "prefetches_ended", "Prefetches by how they ended.", ended, "state")


def _cache(state: State, facts: Facts) -> Iterator[Family]:
    yield family("gauge", "cache_used_bytes", "Bytes in the cache.", state.get("cache_used"))
    text = "Bytes that the cache may take."
    yield family("gauge", "cache_limit_bytes", text, state.get("cache_limit"))
    quotas = state.get("cache_quotas") or ()
    text = "Bytes that the models of a quota's scope take."
    used = {one["scope"]: one["used"] for one in quotas if one["used"] is not None}
    yield family("gauge", "cache_quota_used_bytes", text, used, "scope")
    text = "Bytes that they may take together."
    limits = {one["scope"]: one["limit"] for one in quotas}
    yield family("gauge", "cache_quota_bytes", text, limits, "scope")
    size, free = facts.disk or (None, None)
    yield family("gauge", "disk_size_bytes", "Size of the disk of the cache.", size)
    yield family("gauge", "disk_free_bytes", "Bytes that are free on it.", free)
    disk = state.get("disk") or {}
    text = "1 if the disk of the cache is full or fails."
    yield family("gauge", "disk_fault", text, _flag(disk.get("fault")))
    text = "Bytes that readers got without the disk, since it did not take them."
    yield family("counter", "disk_bypassed_bytes", text, disk.get("passed"))
    gone = state.get("evictions") or {}
    yield family("counter", "evictions", "Objects that were evicted.", gone.get("objects"))
    text = "Bytes that were evicted, of open files too."
    yield family("counter", "evicted_bytes", text, gone.get("bytes"))


def _upkeep(state: State, facts: Facts) -> Iterator[Family]:
    yield family("gauge", "pins", "Pinned versions.", facts.pins or {}, "state")
    text = "Objects whose bytes were wrong, and which are not served."
    yield family("gauge", "quarantined_objects", text, len(state.get("quarantined") or ()))
    scrub = state.get("scrub") or {}
    text = "Bad chunks that the scrub found and that are yet to be fetched again."
    yield family("gauge", "scrub_owed_chunks", text, scrub.get("owed"))
    text = "Bad chunks that the last whole round of the scrub found."
    yield family("gauge", "scrub_bad_chunks", text, scrub.get("last_bad"))
    text = "When that round ended, in unix seconds; 0 for never."
    yield family("gauge", "scrub_last_end_time_seconds", text, scrub.get("ended"))


def _flag(value: object) -> int:
    return int(value is not None)


def names(families: Iterable[Family]) -> set[str]:
    """The names of series, as Prometheus has them."""
    suffixes = {"counter": ("_total",), "info": ("_info",), "gauge": ("",)}
    several = {"histogram": ("_bucket", "_count", "_sum"), "summary": ("_count", "_sum")}
    return {one.name + suffix for one in families for suffix in (suffixes | several)[one.kind]}
