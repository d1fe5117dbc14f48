"""A document as it came, and the state of the call that asks for it; below documents.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio

from axonfs.http_client.shares import Visit
from axonfs.http_client.signing import Signer
from axonfs.http_client.urls import Url


@dataclass(frozen=True, slots=True)
class Fetched:
    """A document as its source sent it.

    Args:
        final_url: the URL after redirects.
        following: the URL of the next page, if the answer names one.
    """

    body: bytes
    etag: str | None
    final_url: str
    following: str | None = None


@dataclass(slots=True)
class Asked:
    """The state of one call of `get`. Progress moves the deadline of `scope`, up to `until`."""

    asked: str
    signer: Signer | None
    url: Url
    headers: dict[str, str]
    secrets: Mapping[str, str] = field(repr=False)
    limit: int
    check: Callable[[bytes], object]
    scope: trio.CancelScope
    until: float
    visit: Visit
    best: int = 0
    tried: str = ""  # how often, and why the last attempt failed

    @property
    def expected(self) -> frozenset[int]:
        return frozenset({200, 304} if "If-None-Match" in self.headers else {200})
