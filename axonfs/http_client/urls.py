"""URLs split into origin and target, and the rules for redirects.

Pure. Requests go to http and https only; for URLs of other schemes signing.py says where. Redirects
from https to http are refused; credentials go only to the origin (scheme, host, port) that they
were given for.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from axonfs.errors import UnavailableError
from axonfs.http_client.faults import fault
from axonfs.names import printable

MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Each request for an object splits its URL some times, which takes as long as to send it.
REMEMBERED = 1024
_PORTS = {"http": 80, "https": 443}
# A signer knows the server of s3 URLs, whose host is the bucket, and of oci URLs; file URLs have no
# server.
SIGNED = {"s3": 0, "oci": 0, "file": 0}
# RFC 3986's reserved characters and `%` stay as they are; other special characters are encoded.
_KEPT = "%/:=&?~+!$,;'@()*[]"


class Origin(NamedTuple):
    """Scheme, host and port of a server. Connections and credentials belong to one origin.

    Args:
        address: the one of the host's addresses to connect to; empty for any of them.
    """

    scheme: str
    host: str
    port: int
    address: str = ""

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """The value of a Host header: the port is left out if it is the scheme's default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS.get(self.scheme, 0) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Url:
    """An absolute URL; `target` is path and query, `userinfo` is `user:password` or empty."""

    origin: Origin
    target: str
    userinfo: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.origin.scheme}://{self.origin.authority}{self.target}"

    @property
    def credentials(self) -> dict[str, str]:
        """The Authorization header for the userinfo; no header without userinfo."""
        if not self.userinfo:
            return {}
        token = base64.b64encode(unquote(self.userinfo).encode()).decode()
        return {"Authorization": f"Basic {token}"}


@lru_cache(maxsize=REMEMBERED)
def split_url(text: str, *, signed: bool = False) -> Url:
    """Split `text` into a `Url`, without its fragment.

    Args:
        signed: whether other schemes than http and https are allowed, too (SIGNED).

    Raises:
        ValueError: it is not an absolute http or https URL; the message is for the user.
    """
    ports = _PORTS | SIGNED if signed else _PORTS
    parts = urlsplit(text)
    scheme = parts.scheme.lower()
    if not scheme:
        raise ValueError("the scheme (http or https) is missing")
    if scheme not in ports:
        raise ValueError(f"scheme {scheme} is not supported, only http and https")
    if not parts.hostname and scheme != "file":
        raise ValueError("the host is missing")
    port = parts.port if parts.port is not None else ports[scheme]
    target = quote(parts.path, safe=_KEPT) or "/"
    if parts.query:
        target += "?" + quote(parts.query, safe=_KEPT)
    origin = Origin(scheme, _ascii_host(parts.hostname or ""), port)
    return Url(origin, target, parts.netloc.rpartition("@")[0])


def _ascii_host(host: str) -> str:
    if ":" not in host:
        host = host.encode("idna").decode("ascii")  # UnicodeError is a ValueError
    if any(char <= " " or char in "/?#@\\\x7f" for char in host):
        raise ValueError("the host has invalid characters")
    return host


def target_of(text: str, *, signed: bool = False) -> Url:
    """`split_url` for a URL from the settings or from a document.

    Raises:
        UnavailableError: it is not an absolute http or https URL.
    """
    try:
        return split_url(text, signed=signed)
    except ValueError as exc:
        raise fault(UnavailableError, f"invalid URL: {printable(str(exc))}", shown(text)) from exc


def follow(url: Url, location: str | None) -> Url:
    """The target of a redirect from `url`. Userinfo in `location` is ignored.

    Raises:
        UnavailableError: the target is missing, invalid or not allowed.
    """
    if not location:
        raise fault(UnavailableError, "a redirect without a Location header", shown(str(url)))
    try:
        following = split_url(urljoin(str(url), location))
    except ValueError as exc:
        what = f"a redirect to an invalid URL: {printable(str(exc))}"
        raise fault(UnavailableError, what, shown(str(url))) from exc
    if url.origin.secure and not following.origin.secure:
        raise fault(
            UnavailableError,
            f"a redirect from https to {shown(str(following))}, which is not encrypted, is refused",
            shown(str(url)),
        )
    origin = following.origin
    if origin == url.origin._replace(address=""):
        origin = url.origin
    return Url(origin, following.target)


def endless(url: str) -> UnavailableError:
    """The error for a chain of more than MAX_REDIRECTS redirects."""
    return fault(UnavailableError, f"more than {MAX_REDIRECTS} redirects", shown(url))


def carried(headers: Mapping[str, str], before: Url, after: Url) -> Mapping[str, str]:
    """The credentials to send after a redirect from `before` to `after`: none to another origin."""
    return headers if before.origin == after.origin else {}


def shown(text: str) -> str:
    """`text` for a message, without userinfo and query: signed URLs have secrets in the query."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return "an invalid URL"
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return printable(bare + ("?…" if parts.query else ""), 500)
