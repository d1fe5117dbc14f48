"""The engine's part of a mount's live state, which `status --json` and status.json show."""

from __future__ import annotations

import os
from typing import Any

from axonfs.engine import Engine
from axonfs.service.queries import quarantine
from axonfs.sources import caches_report


def log_place() -> str | None:
    """Where this process's log goes: a file, a terminal or the journal; None for a pipe."""
    place = os.readlink("/proc/self/fd/2")
    if os.environ.get("JOURNAL_STREAM") and place.startswith("socket:"):
        return "the journal"
    return place if place.startswith("/") else None


def engine_state(engine: Engine) -> dict[str, Any]:
    """The sources, the cache with its disk, and what is fetched. Trio thread only."""
    fetched = engine.fetcher.statistics()
    return {
        "offline": engine.settings.offline,
        **_sources(engine, fetched["sources"]),
        "cache": str(engine.settings.cache),
        "cache_used": engine.store.usage(),
        "cache_limit": engine.evictor.limit(),
        "cache_shortage": engine.evictor.shortage(),
        "cache_quotas": engine.evictor.quotas(),
        "disk": {
            "fault": engine.store.health.fault,
            "since": engine.store.health.since,
            **engine.fetcher.overflow.statistics(),
        },
        "evictions": engine.evictor.statistics(),
        "fetch": fetched,
        "prefetch": engine.prefetcher.statistics(),
        "scrub": engine.scrub.statistics(),
        "quarantined": quarantine(engine.store),
    }


def _sources(engine: Engine, sent: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """How each registry and hub answered last; `sent` says which of them stall."""
    report = engine.tree.outages.report()
    allowed = engine.settings.allow_unverified
    for item in report["registries"]:
        item["allow_unverified"] = item["url"].rstrip("/") in allowed
    stalls = {row["source"]: row for row in sent if row["fault"] and not row["cache"]}
    for item in (*report["registries"], *report["hubs"]):
        item |= caches_report(engine.bodies.caches, item["url"])
        if item["error"] is None and (row := stalls.get(item["url"])):  # documents still come
            error = f"no bytes of files came for the deadline: {row['fault']}"
            item |= {"state": "failing", "error": error, "since": row["since"]}
    return report
