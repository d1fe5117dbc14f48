"""Where the site caches of a process are: each address of a name, and the hosts of SRV records.

Each is looked up again every EVERY seconds, and sooner as long as it is not known where one is. A
name with one address is one cache, which connects by the name. Each address of a name with several
is a cache of its own. Lookups run in threads; the rest is for trio only.
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import trio

from axonfs.distro import install_extra
from axonfs.errors import AxonError, DeadlineError, UsageError
from axonfs.http_client.caches import Caches, SiteCaches
from axonfs.http_client.faults import network_fault
from axonfs.http_client.resolver import lookup
from axonfs.http_client.routes import Routes
from axonfs.http_client.urls import Origin, Url, split_url
from axonfs.names import printable

log = logging.getLogger(__name__)

EVERY = 30.0
# The same while it is not known where a cache is: a host may start before its name server answers.
SOON = 3.0
# Seconds for one lookup. A mount that starts waits for the first ones for at most this long.
PATIENCE = 3.0
MOST = 1000  # caches of one name
SRV = "srv+"


def check_srv(configured: str) -> None:
    """
    Raises:
        UsageError: it needs SRV records, and the library for them is not installed.
    """
    if configured.startswith(SRV) and importlib.util.find_spec("dns") is None:
        what = f"{configured} needs SRV records, and dnspython is not installed"
        raise UsageError(what, hint=install_extra("srv"))


class Lookups:
    """Keeps the caches up to date.

    Args:
        routes: a name that is reached through a proxy is looked up by the proxy.
    """

    def __init__(self, caches: Caches, routes: Routes | None = None) -> None:
        self._routes = routes or Routes.of_environment()
        self._names = [
            (site, url)
            for site in caches.sites
            for url in site.configured
            if not _is_fixed(url, self._routes)
        ]

    async def run(self) -> None:
        """Look up all names again and again."""
        while self._names:
            await trio.sleep(SOON if any(site.lacks_some for site, _ in self._names) else EVERY)
            await self.once()

    async def once(self) -> None:
        """Look up all names."""
        async with trio.open_nursery() as nursery:
            for site, url in self._names:
                nursery.start_soon(self._locate, site, url)

    async def _locate(self, site: SiteCaches, url: str) -> None:
        """Where a lookup fails, the caches that are known stay."""
        with trio.move_on_after(PATIENCE + 1) as scope:
            try:
                found = await trio.to_thread.run_sync(
                    _found, url, self._routes, abandon_on_cancel=True
                )
                site.locate(url, found)
            except AxonError as exc:
                log.info("the site cache is not looked up again: %s", exc)
                site.unknown(url, exc)
        if scope.cancelled_caught:
            site.unknown(url, DeadlineError("its name does not resolve in time", source=url))


def _is_fixed(configured: str, routes: Routes) -> bool:
    """Whether there is nothing to look up."""
    if configured.startswith(SRV):
        return False
    origin = split_url(configured).origin
    return _is_address(origin.host) or _is_proxied(origin, routes)


def _is_proxied(origin: Origin, routes: Routes) -> bool:
    try:
        return routes.proxy(origin) is not None
    except AxonError:  # the request will say so
        return True


def _found(configured: str, routes: Routes) -> list[Url]:
    """Where the caches are that are configured as `configured`. Blocking.

    Raises:
        AxonError: the lookup failed.
    """
    url = split_url(configured.removeprefix(SRV))
    if not configured.startswith(SRV):
        return _addresses(url)
    found: list[Url] = []
    faults: list[AxonError] = []
    for host, port in _records(url)[:MOST]:
        target = replace(url, origin=Origin(url.origin.scheme, host, port))
        try:
            one = _is_address(host) or _is_proxied(target.origin, routes)
            found += [target] if one else _addresses(target)
        except AxonError as exc:
            faults.append(exc)
    if faults and not found:
        raise faults[0]
    return found


def _addresses(url: Url) -> list[Url]:
    """One URL for each address of a host, of the family that the resolver puts first."""
    host, port = url.origin.host, url.origin.port
    try:
        found = lookup(host, port, PATIENCE)
    except OSError as exc:
        raise network_fault(exc, str(url)) from exc
    alike = dict.fromkeys(one[4][0] for one in found if one[0] == found[0][0])
    if len(alike) == 1:
        return [url]
    return [replace(url, origin=url.origin._replace(address=one)) for one in list(alike)[:MOST]]


def _records(url: Url) -> list[tuple[str, int]]:
    """The hosts and ports in the SRV records of a name; priorities and weights are not used."""
    from dns import exception, resolver

    name = url.origin.host
    try:
        answer: Any = resolver.resolve(name, "SRV", lifetime=PATIENCE)
    except exception.DNSException as exc:
        text = printable(str(exc), 200)
        raise AxonError(f"the SRV records do not resolve: {text}", source=str(url)) from exc
    found = [(str(one.target).rstrip("."), int(one.port)) for one in answer]
    for host, _ in found:
        _check_target(url, host)
    return sorted(set(found))


def _check_target(url: Url, host: str) -> None:
    """
    Raises:
        AxonError: a certificate would be verified for a host that only the DNS vouches for.
    """
    domain = url.origin.host.split("._tcp.", 1)[-1].lower()
    below = host.lower() == domain or host.lower().endswith("." + domain)
    if url.origin.secure and not below:
        what = f"its SRV records name {printable(host)}, which is not below {domain}"
        hint = "with https the caches have to be of the domain that is configured"
        raise AxonError(what, source=str(url), hint=hint)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
