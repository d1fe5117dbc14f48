"""Site caches: reverse proxies with a cache, near this host, that stand in for a source.

A source has any number of them. Each URL below the source has an order of its caches, by rendezvous
hashing of a key: the URL of a document, or the digest and the slice of an object. All hosts have
the same order, so the caches hold one copy together. The first cache of the order that is not set
aside is asked, then the next one, then the source itself, unless `fallback` is false.

A cache that fails is set aside at once. A single request tries it again after FIRST_PAUSE seconds,
and then every few seconds, until one succeeds. Sends nothing; any thread may call every method.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from urllib.parse import unquote

from axonfs.errors import AxonError, UnavailableError
from axonfs.http_client.faults import fault
from axonfs.http_client.urls import SIGNED, Url, shown, split_url, target_of

# Seconds until a cache that was set aside is tried again; the pause doubles up to the second.
FIRST_PAUSE, LAST_PAUSE = 1.0, 5.0
# Bytes of an object that are asked of one cache; no request goes beyond such a slice. The caches of
# packaging/caches have slices of the same size. A mount that read 1 GiB through a warm nginx took
# 1.11, 1.09 and 1.04 times the processor time of a direct read with slices of 4, 8 and 16 MiB; and
# of 8 caches the one with the most got 1.13, 1.17 and 1.28 times its share of 4 GiB.
SLICE = 8 << 20


def slice_chunks(chunk_size: int) -> int:
    """How many chunks of an object are one slice."""
    return max(SLICE // chunk_size, 1)


def slice_key(digest: str, number: int) -> str:
    """The key of a slice of an object, from 0 on: the same on every host."""
    return f"{digest}/{number}"


def object_headers(sha256: str) -> dict[str, str]:
    """What tells a cache which object it is asked for, whatever the URL and its signature are.

    Dragonfly's peers share it under that name, in pieces of a slice, and bring only what is asked.
    """
    name = f"sha256:{sha256}"
    return {
        "Axonfs-Object": name,
        "X-Dragonfly-Use-P2P": "true",
        "X-Dragonfly-Prefetch": "false",
        "X-Dragonfly-Piece-Length": f"{SLICE >> 20}mib",
        "X-Dragonfly-Content-For-Calculating-Task-ID": name,
    }


@dataclass(frozen=True, slots=True)
class CacheState:
    """What a cache did so far.

    Args:
        address: the one of its host's addresses that this cache is; empty if it has only one.
        requests, bytes: that it was sent, and that were received from it.
        fault: why it is set aside; None while it is used.
        since: unix seconds, since when it is set aside.
    """

    url: str
    address: str
    requests: int
    bytes: int
    fault: str | None
    since: float | None

    @property
    def name(self) -> str:
        return f"{self.url} at {self.address}" if self.address else self.url


class Cache:
    """One cache of one source.

    Args:
        url: stands in for the URL of the source; its origin may have an address.
    """

    def __init__(self, url: Url) -> None:
        self.url = replace(url, target=url.target.rstrip("/"))
        self.name = f"{self.url} at {url.origin.address}" if url.origin.address else str(self.url)
        self._seed = blake2b(self.name.encode(), digest_size=8)
        self._lock = threading.Lock()
        self._fault: str | None = None
        self._since: float | None = None
        self._again = self._pause = 0.0
        self._requests = self._bytes = 0

    def __repr__(self) -> str:
        return f"<Cache {self.name}>"

    @property
    def state(self) -> CacheState:
        with self._lock:
            return CacheState(
                str(self.url),
                self.url.origin.address,
                self._requests,
                self._bytes,
                self._fault,
                self._since,
            )

    @property
    def set_aside(self) -> bool:
        return self._fault is not None

    def weight(self, key: bytes) -> bytes:
        """Its place in the order of `key`: the greatest is the first."""
        hashed = self._seed.copy()
        hashed.update(b"\0" + key)
        return hashed.digest()

    def admits(self) -> bool:
        """Whether to send it a request now; true for one request of a cache that is set aside,
        once its pause is over."""
        if self._fault is None:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._again:
                return False
            self._pause = min(self._pause * 2, LAST_PAUSE)
            self._again = now + self._pause
            return True

    def asked(self) -> None:
        """Note that it is sent a request."""
        with self._lock:
            self._requests += 1

    def received(self, count: int) -> None:
        """Note that `count` bytes of a body were received from it."""
        with self._lock:
            self._bytes += count

    def answered(self) -> None:
        """Note that it did what it was asked, which ends that it is set aside. Bytes that have a
        digest must have been compared with it."""
        with self._lock:
            self._fault = self._since = None

    def failed(self, error: AxonError) -> None:
        """Set it aside."""
        with self._lock:
            if self._fault is None:
                self._since, self._pause = time.time(), FIRST_PAUSE
                self._again = time.monotonic() + FIRST_PAUSE
            self._fault = error.what


class SiteCaches:
    """The caches of one source.

    Args:
        source: the URL of the source: that of a registry, or a hub's endpoint.
        urls: of the caches, as they are configured.
        fallback: whether the source itself is asked when no cache answers.
    """

    def __init__(self, source: str, urls: Iterable[str], *, fallback: bool = True) -> None:
        self.fallback = fallback
        self._source = target_of(source.partition("?")[0], signed=True)
        self._base = self._source.target.rstrip("/") + "/"
        if self._source.origin.scheme == "oci":
            self._base = "/"  # URLs of what it has are oci://host/v2/<prefix>…
        self._lock = threading.Lock()
        # SRV records say where those of other schemes are.
        self._members = {
            url: [Cache(split_url(url))] if url.startswith("http") else [] for url in urls
        }
        self._caches = tuple(cache for some in self._members.values() for cache in some)
        self._unknown: dict[str, str] = {}  # by URL, why it is not known where it is

    def __repr__(self) -> str:
        return f"<SiteCaches of {self._source}: {', '.join(cache.name for cache in self._caches)}>"

    @property
    def source(self) -> str:
        """The URL of the source."""
        return str(self._source)

    @property
    def configured(self) -> tuple[str, ...]:
        """The URLs of the caches as they are configured."""
        return tuple(self._members)

    def __iter__(self) -> Iterator[Cache]:
        return iter(self._caches)

    def alone(self, cache: Cache) -> SiteCaches:
        """`cache` as the only cache, and without the source."""
        found = SiteCaches(self.source, [str(cache.url)], fallback=False)
        found.locate(str(cache.url), [cache.url])
        return found

    def locate(self, configured: str, found: Sequence[Url]) -> None:
        """Have the cache configured as `configured` be those at `found`; those known stay."""
        with self._lock:
            known = {cache.url: cache for cache in self._members[configured]}
            bare = (replace(url, target=url.target.rstrip("/")) for url in found)
            self._members[configured] = [
                known.get(url) or Cache(url) for url in dict.fromkeys(bare)
            ]
            self._caches = tuple(cache for some in self._members.values() for cache in some)
            self._unknown.pop(configured, None)

    def unknown(self, configured: str, error: AxonError) -> None:
        """Note that a lookup of the cache configured as `configured` failed."""
        with self._lock:
            if not self._members[configured]:
                self._unknown[configured] = error.what

    @property
    def lacks_some(self) -> bool:
        """Whether it is not known where a cache is, of those that were looked up."""
        return bool(self._unknown)

    @property
    def none_may_be_asked(self) -> bool:
        """Whether all caches are set aside, and the source may not be asked."""
        return not self.fallback and all(cache.set_aside for cache in self._caches)

    def states(self) -> list[CacheState]:
        """What each cache did, and which ones are not known where they are."""
        unknown = [CacheState(url, "", 0, 0, why, None) for url, why in self._unknown.items()]
        return [cache.state for cache in self._caches] + unknown

    def order(self, key: str) -> list[Cache]:
        """All caches in the order of `key`, which is the same on every host."""
        raw = key.encode()
        return sorted(self._caches, key=lambda cache: cache.weight(raw), reverse=True)

    def choose(self, key: str, tried: Iterable[Cache] = ()) -> Cache | None:
        """The cache to ask now: the first in the order of `key` that admits a request.

        Args:
            tried: caches that are passed over.
        """
        passed = set(tried)
        return next(
            (cache for cache in self.order(key) if cache not in passed and cache.admits()), None
        )

    def covers(self, url: str) -> bool:
        """Whether `url` is below the source, so that its caches have it."""
        try:
            asked = split_url(url, signed=True)
        except ValueError:
            return False
        path = unquote(asked.target.partition("?")[0])
        inside = asked.origin == self._source.origin and asked.target.startswith(self._base)
        return inside and not {".", ".."}.intersection(path.split("/"))

    def rewritten(self, cache: Cache, url: str, signed: Url | None = None) -> Url | None:
        """The URL for which to ask `cache` in place of `url`; None if `url` is not below the
        source.

        Args:
            signed: where the source itself would be asked for it, if a signer says so.
        """
        if not self.covers(url):
            return None
        if self._source.origin.scheme in SIGNED:
            rest = signed.target if signed else None
        else:
            rest = "/" + split_url(url).target.removeprefix(self._base)
        return None if rest is None else replace(cache.url, target=cache.url.target + rest)

    def source_headers(self, cache: Cache, signed: Url) -> dict[str, str]:
        """What tells Dragonfly which source `cache` stands in for; other caches know it.

        Args:
            signed: where the source itself would be asked.
        """
        whole = str(self._source)
        if self._source.origin.scheme in SIGNED:
            whole = str(replace(signed, target=""))
        base = whole.rstrip("/")
        if not base.endswith(cache.url.target):
            return {}
        return {"X-Dragonfly-Registry": base.removesuffix(cache.url.target)}

    def restored(self, cache: Cache, url: Url) -> str | None:
        """The URL below the source that `url` at `cache` stands for; None if it is elsewhere or
        the source's URLs are signed."""
        base = cache.url.target + "/"
        inside = url.origin == cache.url.origin and url.target.startswith(base)
        if not inside or self._source.origin.scheme in SIGNED:
            return None
        return str(replace(self._source, target=self._base + url.target.removeprefix(base)))

    def none_left(self, url: str, said: Mapping[str, str] | None = None) -> UnavailableError:
        """The error where no cache answers, and the source may not be asked.

        Args:
            said: faults by the names of the caches, beside those for which they are set aside.
        """
        known = {state.name: state.fault for state in self.states() if state.fault}
        faults = [f"{name}: {fault}" for name, fault in {**known, **(said or {})}.items()]
        what = f"no site cache of {shown(self.source)} answers ({'; '.join(faults[:3])})"
        hint = "check the caches; axonfs status shows them, and fallback: origin allows the source"
        return fault(UnavailableError, what, shown(url), transient=True, hint=hint)

    def elsewhere(self, url: str) -> UnavailableError:
        """The error for a URL that no cache has, where the source may not be asked."""
        what = f"it is not below {shown(self.source)}, so its site caches do not have it"
        hint = "fallback: origin allows to ask the source itself"
        return fault(UnavailableError, what, shown(url), hint=hint)


@dataclass(frozen=True, slots=True)
class Through:
    """The requests of one document or of one range through `cache`."""

    site: SiteCaches
    cache: Cache

    def first(self, url: str, signed: Url | None = None) -> Url:
        """Where to ask for `url`, which is below the source.

        Args:
            signed: where the source itself would be asked for it, if a signer says so.
        """
        found = self.site.rewritten(self.cache, url, signed)
        if found is None:
            raise self.site.elsewhere(url)
        return found

    def headers(self, signed: Url) -> dict[str, str]:
        """What the cache is told beside the request, which would itself go to `signed`."""
        return self.site.source_headers(self.cache, signed)

    def following(self, url: Url) -> Url:
        """Where to go on after a redirect to `url`: to the cache, if `url` is below the source.

        Raises:
            UnavailableError: it leads elsewhere, and only the caches may be asked.
        """
        if url.origin == self.cache.url.origin:
            return url
        found = self.site.rewritten(self.cache, str(url), url)
        if found is None and not self.site.fallback:
            what = f"it redirects to {shown(str(url))}, which it should follow itself"
            raise fault(UnavailableError, what, self.cache.name)
        return found or url

    def told(self, url: Url) -> str:
        """The URL of the source that `url` stands for, or `url` itself."""
        return self.site.restored(self.cache, url) or str(url)


class Caches:
    """The caches of all sources of a process, by the URL of what is asked for.

    Args:
        sites: each one's URL and its caches; a URL below several of them belongs to the longest.
    """

    def __init__(self, sites: Iterable[SiteCaches] = ()) -> None:
        self.sites = tuple(sorted(sites, key=lambda site: len(site.source), reverse=True))

    def of(self, url: str) -> SiteCaches | None:
        """The caches that have `url`."""
        return next((site for site in self.sites if site.covers(url)), None)
