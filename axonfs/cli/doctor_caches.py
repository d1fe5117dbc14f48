"""The checks of `axonfs doctor` for site caches: whether each of them answers.

They send requests, as a mount does, and change nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import trio

from axonfs.cli.doctor_checks import FAIL, OK, WARN, Check
from axonfs.cli.options import openly
from axonfs.errors import AccessDeniedError, AxonError, NotFoundError
from axonfs.http_client import (
    Cache,
    Caches,
    CacheState,
    Documents,
    Limits,
    Lookups,
    SiteCaches,
    Trust,
)
from axonfs.settings.settings import Settings
from axonfs.sources import RegistrySigners, site_caches

PATIENCE = 10.0
_LIMITS = Limits(connect=5, first_byte=8, stall=8, deadline=PATIENCE, attempts=1)
_LIMIT = 64 << 20
_HINT = "check that it runs, and its configuration; until then the other caches do its part"
_OPEN = "use https, or a network that you trust"


def site_cache_checks(settings: Settings) -> Iterator[Check]:
    """Request one document of each source from each of its site caches."""
    if not settings.offline:
        yield from trio.run(_ask_all, settings)


async def _ask_all(settings: Settings) -> list[Check]:
    caches = site_caches(settings)
    await Lookups(caches).once()
    checks: dict[tuple[str, str], Check] = {}
    async with trio.open_nursery() as nursery:
        for site in caches.sites:
            for state in site.states():
                checks[site.source, state.name] = _unknown(site, state)
            for cache in site:
                nursery.start_soon(_ask, settings, site, cache, checks)
    return list(checks.values())


def _unknown(site: SiteCaches, state: CacheState) -> Check:
    return Check(_title(state.name), _state(site), state.fault or "", _HINT)


def _title(name: str) -> str:
    return f"site cache {name}"


def _state(site: SiteCaches) -> str:
    return WARN if site.fallback else FAIL


async def _ask(
    settings: Settings, site: SiteCaches, cache: Cache, checks: dict[tuple[str, str], Check]
) -> None:
    began, only = time.monotonic(), site.alone(cache)
    try:
        with trio.fail_after(PATIENCE):
            await _probe(settings, only)
        took = (time.monotonic() - began) * 1000
        text = f"answers for {site.source} in {took:.0f} ms"
        check = Check(_title(cache.name), OK, text)
        if _token_of(settings, site) and (what := openly(site.source, [str(cache.url)])):
            check = Check(_title(cache.name), WARN, f"{text}, but {what}", _OPEN)
    except trio.TooSlowError:
        text = f"no answer within {PATIENCE:.0f} s"
        check = Check(_title(cache.name), _state(site), text, _HINT)
    except AxonError as exc:
        why = next((state.fault for state in only.states()), None) or exc.what
        text = f"does not answer for {site.source}: {why}"
        check = Check(_title(cache.name), _state(site), text, _HINT)
    checks[site.source, cache.name] = check


def _token_of(settings: Settings, site: SiteCaches) -> str | None:
    source = site.source.rstrip("/")
    tokens = ((url, settings.token(url)) for url in settings.tokens)
    return next((token for url, token in tokens if url.partition("?")[0] == source), None)


async def _probe(settings: Settings, site: SiteCaches) -> None:
    """
    Raises:
        AxonError: the cache does not answer, or a proxy before it does.
    """
    token = _token_of(settings, site)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    signers = RegistrySigners(settings.ca_bundle)
    signers.learn(settings.registries, settings.tokens)
    async with Documents(
        _LIMITS,
        Trust(settings.ca_bundle),
        signers=signers.by_scheme,
        caches=Caches([site]),
    ) as documents:
        with contextlib.suppress(NotFoundError, AccessDeniedError):  # the source's own answer
            await documents.get(_probe_url(site.source), limit=_LIMIT, headers=headers)


def _probe_url(url: str) -> str:
    if url.startswith("oci:"):
        return "/".join(url.split("/")[:3]) + "/v2/"
    return f"{url.rstrip('/')}/api/v1/index.json"
