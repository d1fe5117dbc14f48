"""Where an object's bytes are: the parameters of its requests.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from axonfs.http_client.caches import Cache, object_headers


@dataclass(frozen=True, slots=True)
class Location:
    """Where an object's bytes are.

    Args:
        headers: credentials, sent to this URL's origin only.
        etag: the ETag that every answer must have, if any.
        signed: `url` redirects to a signed URL on another host, as on hubs. The signed URL is used
            until its host refuses it; then `url` is requested again. ETags are ignored.
        access: the hint for the user where access is denied.
        spread: whether any address of the host will do. False where nothing but the ETag ties the
            answers together: each server of the host may have another one.
        cache: the site cache that is asked in place of `url`. It gets the headers, too.
        ranged: whether an answer with the whole object in place of a range is an error.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    etag: str | None = None
    signed: bool = False
    access: str | None = None
    spread: bool = True
    cache: Cache | None = None
    ranged: bool = False

    def named(self, sha256: str | None) -> Self:
        """The same, with what tells a cache or a proxy which object it is asked for."""
        named = object_headers(sha256) if sha256 else {}
        return replace(self, headers={**self.headers, **named})

    def through(self, cache: Cache, sha256: str | None, *, ranged: bool) -> Self:
        """The same of a site cache."""
        return replace(self.named(sha256), signed=False, cache=cache, ranged=ranged)

    def renewed(self) -> Self:
        """The same, where a cache fetches anew what it has."""
        return replace(self, headers={**self.headers, "Cache-Control": "no-cache"})

    @property
    def asked(self) -> str:
        """Who is asked, for messages."""
        return self.cache.name if self.cache else self.url
