"""The checks of `axonfs doctor` that ask registries and hubs: do they answer, how fast, is it
HTTPS, do their tokens work.

An answer's Date header would tell of a wrong clock, but a wrong clock matters only to TLS, and
then the TLS error says so: it is put in words here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import trio

from axonfs.cli.checks import FAIL, OK, WARN, Check
from axonfs.config import Settings
from axonfs.errors import ADD_REGISTRY, AccessDeniedError, AxonError, NotFoundError
from axonfs.remote import (
    Documents,
    HubSource,
    Limits,
    RegistrySource,
    Trust,
    configured_hubs,
    hub_tokens,
)
from axonfs.units import counted

PATIENCE = 15.0
_LIMITS = Limits(connect=5, first_byte=10, stall=10, deadline=PATIENCE, attempts=1)
_LOCAL = ("localhost", "127.0.0.1", "::1")


def registry_checks(settings: Settings) -> Iterator[Check]:
    """Ask each registry for its index, and each hub for the account of its token."""
    if settings.offline:
        yield Check("registries", OK, "not asked: offline")
        return
    if not settings.registries:
        yield Check("registries", WARN, "none is configured", ADD_REGISTRY)
    yield from trio.run(_ask_all, settings)


async def _ask_all(settings: Settings) -> list[Check]:
    checks: dict[str, Check] = {}
    async with (
        Documents(_LIMITS, Trust(settings.ca_bundle)) as documents,
        trio.open_nursery() as nursery,
    ):
        for url in settings.registries:
            source = RegistrySource(url, documents, token=settings.token(url))
            nursery.start_soon(_ask, source, url, bool(settings.token(url)), checks)
        hubs = configured_hubs(settings, documents, None, hub_tokens(settings))
        for hub in hubs.values():
            nursery.start_soon(_ask_hub, hub, checks)
    return [checks[name] for name in (*settings.registries, *hubs)]


async def _ask_hub(hub: HubSource, checks: dict[str, Check]) -> None:
    started, name = time.monotonic(), f"hub {hub.namespace}"
    if hub.silenced:
        text = f"{hub.url} is not asked while {hub.silenced} is set"
        checks[hub.namespace] = Check(name, OK, text)
        return
    without = f"axonfs config set sources, without {hub.namespace}, if it is not needed"
    try:
        with trio.fail_after(PATIENCE):
            text, state, hint = *await _token_of(hub), ""
    except trio.TooSlowError:
        text, state, hint = f"no answer within {PATIENCE:.0f} s", WARN, without
    except AccessDeniedError as exc:
        hint = f"set {hub.token_variable} to one of yours{hub.log_in}, or leave it out"
        text, state = f"its token is refused: {exc.what}", FAIL
    except AxonError as exc:
        text, state, hint = exc.what, WARN, f"{_hint(exc)}; {without}"
    else:
        text = f"answers in {(time.monotonic() - started) * 1000:.0f} ms, {text}"
    checks[hub.namespace] = Check(name, state, f"{hub.url} {text}", hint)


async def _token_of(hub: HubSource) -> tuple[str, str]:
    """What the hub says of its token, and how good that is.

    Raises:
        AccessDeniedError: it refuses the token.
        AxonError: it does not answer.
    """
    try:
        account = await hub.account()
    except AccessDeniedError:
        if hub.has_token:
            raise
        return "without a token", OK
    if not hub.has_token:
        return "without a token", OK
    if account is None:
        return "but it does not say whether the token works", WARN
    return f"its token is {account}'s", OK


async def _ask(source: RegistrySource, url: str, has_token: bool, checks: dict[str, Check]) -> None:
    started, name = time.monotonic(), f"registry {url}"
    try:
        with trio.fail_after(PATIENCE):
            listings = await source.listings()
            searches = listings is None and await _searches(source)
    except trio.TooSlowError:
        checks[url] = Check(name, FAIL, f"no answer within {PATIENCE:.0f} s", _CHECK_URL)
        return
    except AxonError as exc:
        refused = has_token and isinstance(exc, AccessDeniedError)
        what = f"its token is refused: {exc.what}" if refused else exc.what
        checks[url] = Check(name, FAIL, what, _hint(exc))
        return
    took = f"answers in {(time.monotonic() - started) * 1000:.0f} ms"
    if searches:
        checks[url] = Check(name, OK, f"{took}; it has a search and no index")
    elif listings is None:
        text = f"{took}, but it has no index"
        checks[url] = Check(name, WARN, text, "is the URL right? names work, ls and search do not")
    elif has_token and _is_open(url):
        checks[url] = Check(name, WARN, f"{took}, and its token goes over plain HTTP", "use https")
    else:
        checks[url] = Check(name, OK, f"{took}, {counted(len(listings), 'version')}")


async def _searches(source: RegistrySource) -> bool:
    """Whether a registry without an index answers searches, as Axon's do."""
    try:
        await source.search("model")
    except NotFoundError:
        return False
    return True


def _is_open(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in _LOCAL


_CHECK_URL = "check the URL, the network and the proxy (HTTPS_PROXY)"


def _hint(exc: AxonError) -> str:
    if isinstance(exc, AccessDeniedError):
        return "set its token: axonfs registry add URL --with-token"
    if "certificate" in exc.what.lower():
        clock = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        return f"is the clock right ({clock})? a private authority: axonfs config set ca_bundle PEM"
    return _CHECK_URL
