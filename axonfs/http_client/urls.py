"""URLs taken apart once, and the rules for following one to another.

Pure. What is allowed: http and https; never from https to http; credentials stay with the origin
(scheme, host, port) they were given for.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from axonfs.errors import UnavailableError
from axonfs.http_client.faults import fault
from axonfs.names import printable

MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"http": 80, "https": 443}
# RFC 3986's reserved characters and `%` stay; everything else that is not plain gets encoded.
_KEPT = "%/:=&?~+!$,;'@()*[]"


class Origin(NamedTuple):
    """Who answers: the unit that connections and credentials belong to."""

    scheme: str
    host: str
    port: int

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """As in a Host header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Url:
    """An absolute URL; `target` is its path and query, `userinfo` `user:password` or empty."""

    origin: Origin
    target: str
    userinfo: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.origin.scheme}://{self.origin.authority}{self.target}"

    @property
    def credentials(self) -> dict[str, str]:
        """The Authorization header that the userinfo stands for."""
        if not self.userinfo:
            return {}
        token = base64.b64encode(unquote(self.userinfo).encode()).decode()
        return {"Authorization": f"Basic {token}"}


def split_url(text: str) -> Url:
    """`text` taken apart; its fragment is dropped.

    Raises:
        ValueError: it is not an absolute http or https URL; the message is for a person.
    """
    parts = urlsplit(text)
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise ValueError(f"{scheme or 'no'} scheme, only http and https are spoken")
    if not parts.hostname:
        raise ValueError("no host")
    port = parts.port if parts.port is not None else _PORTS[scheme]
    target = quote(parts.path, safe=_KEPT) or "/"
    if parts.query:
        target += "?" + quote(parts.query, safe=_KEPT)
    origin = Origin(scheme, _ascii_host(parts.hostname), port)
    return Url(origin, target, parts.netloc.rpartition("@")[0])


def _ascii_host(host: str) -> str:
    if ":" not in host:
        host = host.encode("idna").decode("ascii")  # UnicodeError is a ValueError
    if any(char <= " " or char in "/?#@\\\x7f" for char in host):
        raise ValueError("a host with characters that no host has")
    return host


def target_of(text: str) -> Url:
    """`split_url` for a URL that this program was told to ask.

    Raises:
        UnavailableError: nothing can be asked there.
    """
    try:
        return split_url(text)
    except ValueError as exc:
        raise fault(
            UnavailableError, f"not a URL to fetch: {printable(str(exc))}", shown(text)
        ) from exc


def follow(url: Url, location: str | None) -> Url:
    """Where a redirect from `url` leads; userinfo in it is ignored.

    Raises:
        UnavailableError: nowhere that this program goes.
    """
    if not location:
        raise fault(UnavailableError, "a redirect that leads nowhere", shown(str(url)))
    try:
        following = split_url(urljoin(str(url), location))
    except ValueError as exc:
        what = f"a redirect is refused: {printable(str(exc))}"
        raise fault(UnavailableError, what, shown(str(url))) from exc
    if url.origin.secure and not following.origin.secure:
        raise fault(
            UnavailableError,
            f"a redirect from https to {shown(str(following))} is refused",
            shown(str(url)),
        )
    return Url(following.origin, following.target)


def endless(url: str) -> UnavailableError:
    """The fault of a chain of redirects that was followed far enough."""
    return fault(UnavailableError, f"more than {MAX_REDIRECTS} redirects", shown(url))


def carried(headers: Mapping[str, str], before: Url, after: Url) -> Mapping[str, str]:
    """The credentials that go along from `before` to `after`: none to another origin."""
    return headers if before.origin == after.origin else {}


def shown(text: str) -> str:
    """`text` for a message: no userinfo, and no query, where signed URLs have their secrets."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return "an unreadable URL"
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return printable(bare + ("?…" if parts.query else ""), 500)
