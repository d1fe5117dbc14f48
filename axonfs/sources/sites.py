"""The site caches of a process, from its settings."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from axonfs.http_client import Caches, SiteCaches, check_srv
from axonfs.settings.settings import Settings
from axonfs.settings.via import NEVER, ORIGIN, Via
from axonfs.sources.hubs import endpoint_of


def site_caches(settings: Settings) -> Caches:
    """The site caches of every registry and hub that has some. Sends nothing.

    Raises:
        UsageError: the endpoint of a hub is not a URL, or the library for SRV records is missing.
    """
    urls = {source: source for source in settings.via if ":" in source}
    urls |= {name: endpoint_of(name) for name in settings.sources if name in settings.via}
    return Caches(_caches_of(url, settings.via[source]) for source, url in urls.items())


def _caches_of(url: str, via: Via) -> SiteCaches:
    for configured in via.caches:
        check_srv(configured)
    return SiteCaches(url, via.caches, fallback=via.fallback != NEVER)


def caches_report(caches: Caches, source: str) -> dict[str, Any]:
    """What the site caches of the source at `source` did, for `status`; empty without caches."""
    site = caches.of(source)
    if site is None:
        return {}
    states = site.states()
    total = sum(state.bytes for state in states)
    listed = [{**asdict(state), "share": state.bytes / total if total else 0.0} for state in states]
    return {"caches": listed, "fallback": ORIGIN if site.fallback else NEVER}
