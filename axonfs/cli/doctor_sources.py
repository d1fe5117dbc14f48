"""The checks of `axonfs doctor` for registries and hubs: whether they answer, how fast, over HTTPS,
and whether their tokens work. They send requests and change nothing.

There is no check of the clock. A wrong clock matters only to TLS, and a TLS error gets a hint here
that shows the machine's time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import trio

from axonfs.cli.doctor_checks import FAIL, OK, WARN, Check
from axonfs.cli.options import sent_openly
from axonfs.errors import ADD_REGISTRY, AccessDeniedError, AxonError, NotFoundError
from axonfs.http_client import Documents, Limits, Lookups, Trust
from axonfs.names import OCI
from axonfs.settings.settings import Settings
from axonfs.settings.store_urls import oci_alias
from axonfs.sources import (
    HubSource,
    OciRegistry,
    RegistrySigners,
    RegistrySource,
    configured_hubs,
    hub_tokens,
    oci_registries,
    site_caches,
)
from axonfs.units import counted

PATIENCE = 15.0
_LIMITS = Limits(connect=5, first_byte=10, stall=10, deadline=PATIENCE, attempts=1)


def registry_checks(settings: Settings) -> Iterator[Check]:
    """Request the index of each registry, and the account of each hub's token, as a mount does."""
    if settings.offline:
        yield Check("registries", OK, "not checked: offline")
        return
    if not settings.registries:
        yield Check("registries", WARN, "none is configured", ADD_REGISTRY)
    yield from trio.run(_ask_all, settings)


async def _ask_all(settings: Settings) -> list[Check]:
    checks: dict[str, Check] = {}
    signers = RegistrySigners(settings.ca_bundle)
    signers.learn(settings.registries, settings.tokens)
    caches, trust = site_caches(settings), Trust(settings.ca_bundle)
    await Lookups(caches).once()
    async with (
        Documents(_LIMITS, trust, signers=signers.by_scheme, caches=caches) as documents,
        trio.open_nursery() as nursery,
    ):
        usual = [url for url in settings.registries if not url.startswith("oci:")]
        for url in usual:
            source = RegistrySource(url, documents, token=settings.token(url))
            nursery.start_soon(_ask, source, url, bool(settings.token(url)), checks)
        oci = oci_registries(settings.registries, documents, None)
        tokens = {f"{OCI}/{oci_alias(url)}" for url in settings.tokens if url.startswith("oci:")}
        for name, registry in oci.items():
            nursery.start_soon(_ask_oci, registry, name, name in tokens, checks)
        hubs = configured_hubs(settings, documents, None, hub_tokens(settings))
        for hub in hubs.values():
            nursery.start_soon(_ask_hub, hub, checks)
    return [checks[name] for name in (*usual, *oci, *hubs)]


async def _ask_oci(registry: OciRegistry, name: str, token: bool, checks: dict[str, Check]) -> None:
    started, title = time.monotonic(), f"registry {registry.name}"
    logged_in = token or await trio.to_thread.run_sync(registry.logged_in)
    try:
        with trio.fail_after(PATIENCE):
            await registry.ping()
    except trio.TooSlowError:
        checks[name] = Check(title, FAIL, f"no answer within {PATIENCE:.0f} s", _CHECK_URL)
        return
    except AccessDeniedError as exc:
        if logged_in:
            checks[name] = Check(title, FAIL, f"its log-in is refused: {exc.what}", exc.hint or "")
        else:
            text = "it answers, and asks for a log-in; without one it may have public models only"
            checks[name] = Check(title, WARN, text, exc.hint or "")
        return
    except AxonError as exc:
        checks[name] = Check(title, FAIL, exc.what, exc.hint or _hint(exc))
        return
    took = f"answers in {(time.monotonic() - started) * 1000:.0f} ms"
    account = "with your log-in" if logged_in else "without a log-in"
    checks[name] = Check(title, OK, f"{took}, {account}; its models are below {name}/")


async def _ask_hub(hub: HubSource, checks: dict[str, Check]) -> None:
    started, name = time.monotonic(), f"hub {hub.namespace}"
    if hub.silenced:
        text = f"{hub.url} is not checked while {hub.silenced} is set"
        checks[hub.namespace] = Check(name, OK, text)
        return
    without = f"if you do not need it: axonfs config set sources, without {hub.namespace}"
    try:
        with trio.fail_after(PATIENCE):
            text, state, hint = *await _token_of(hub), ""
    except trio.TooSlowError:
        text, state, hint = f"no answer within {PATIENCE:.0f} s", WARN, without
    except AccessDeniedError as exc:
        hint = f"set {hub.token_variable} to a valid token{hub.log_in}, or unset it"
        text, state = f"its token is refused: {exc.what}", FAIL
    except AxonError as exc:
        text, state, hint = exc.what, WARN, f"{_hint(exc)}; {without}"
    else:
        text = f"answers in {(time.monotonic() - started) * 1000:.0f} ms, {text}"
    checks[hub.namespace] = Check(name, state, f"{hub.url} {text}", hint)


async def _token_of(hub: HubSource) -> tuple[str, str]:
    """What the hub says about its token, as a text and the state of the check.

    Raises:
        AccessDeniedError: the hub refuses the token.
        AxonError: the hub does not answer.
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
        checks[url] = Check(name, FAIL, what, _hint(exc) if _is_web(url) else exc.hint or "")
        return
    took = f"answers in {(time.monotonic() - started) * 1000:.0f} ms"
    if searches:
        checks[url] = Check(name, OK, f"{took}; it has no index but can be searched")
    elif listings is None:
        text = f"{took}, but it has no index"
        hint = "check the URL; without an index, ls and search find nothing, but names resolve"
        checks[url] = Check(name, WARN, text, hint)
    elif has_token and sent_openly(url):
        checks[url] = Check(
            name, WARN, f"{took}, but its token is sent over plain HTTP", "use https"
        )
    else:
        checks[url] = Check(name, OK, f"{took}, {counted(len(listings), 'version')}")


async def _searches(source: RegistrySource) -> bool:
    """Whether a registry without an index answers searches, as those of Axon do."""
    try:
        await source.search("model")
    except NotFoundError:
        return False
    return True


def _is_web(url: str) -> bool:
    return url.startswith(("http:", "https:"))


_CHECK_URL = "check the URL, the network and the proxy (HTTPS_PROXY)"


def _hint(exc: AxonError) -> str:
    if isinstance(exc, AccessDeniedError):
        return "set its token: axonfs registry add URL --with-token"
    if "certificate" in exc.what.lower():
        clock = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        private = "for a private certificate authority: axonfs config set ca_bundle PEM"
        return f"check the clock, which shows {clock}; {private}"
    return _CHECK_URL
