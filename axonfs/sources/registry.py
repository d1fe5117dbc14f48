"""A registry: plain files behind any web server, in the layout of `axonfs publish`, or Axon's own.

    api/v1/index.json                                       every version
    api/v1/search?q=                                        optional
    api/v1/models/<model>/versions.json                     optional, as is a manifest of `latest`
    api/v1/models/<model>/<version>/manifest.yaml
    objects/sha256/ab/<digest>, chunks/sha256/ab/<digest>   below the same root as the manifest

Trio only.
"""

from __future__ import annotations

import json
import logging
from functools import partial
from urllib.parse import quote, urljoin, urlsplit

import trio

from axonfs.errors import (
    AccessDeniedError,
    MalformedError,
    NotFoundError,
    VanishedError,
    naming,
)
from axonfs.formats import leftout
from axonfs.formats.chunktable import ChunkTable, parse_table, table_bytes
from axonfs.formats.layout import signatures_key
from axonfs.formats.listing import (
    API_VERSION,
    MAX_INDEX_BYTES,
    MAX_VERSIONS_BYTES,
    Listing,
    Versions,
    parse_index,
    parse_versions,
    parse_yanked,
    ranked,
    search,
)
from axonfs.formats.manifest import MAX_MANIFEST_BYTES, FileEntry, Manifest, parse_manifest
from axonfs.formats.package import Package
from axonfs.http_client.documents import Documents
from axonfs.http_client.location import Location
from axonfs.http_client.urls import SIGNED, shown, split_url, target_of
from axonfs.names import LATEST, Spec
from axonfs.signatures import parse_signatures
from axonfs.sources.access import Access
from axonfs.sources.kept import KeptDocuments, Once
from axonfs.sources.source import DocumentCache

log = logging.getLogger(__name__)

# Seconds until a registry without an index is asked for it again.
NO_INDEX_TTL = 60.0
MAX_SEARCH_BYTES = 8 << 20
MAX_WORDS = 6  # of a query; each word costs one more request
_API = "api/v1/"


class RegistrySource:
    """The registry at `url`.

    Args:
        token: sent as a bearer token, to the origin of `url` only.
        cache: documents of earlier runs, for conditional requests, and for use while the registry
            is down.
        allow_unverified: whether files without a digest may be read.
    """

    def __init__(
        self,
        url: str,
        documents: Documents,
        token: str | None = None,
        *,
        cache: DocumentCache | None = None,
        allow_unverified: bool = False,
    ) -> None:
        root = target_of(url.partition("?")[0], signed=True)
        self.url = str(root).rstrip("/") + "/"
        signed = root.origin.scheme in SIGNED
        self.name = root.origin.authority + root.target.rstrip("/")
        if root.origin.scheme == "s3":
            self.name = f"s3://{self.name}"
        self._searchable = not signed
        self._origin = root.origin
        self._secrets = {**root.credentials, **_bearer(token)}
        self._documents = documents
        self._kept = KeptDocuments(documents, cache, self._secrets)
        self._allow_unverified = allow_unverified
        self._no_index_until = float("-inf")
        self._indexed = True  # False once the registry was found to have no index
        self._specs: frozenset[Spec] = frozenset()  # of the last index
        self._access = Access(has_token=bool(self._secrets), signed=signed)

    def __repr__(self) -> str:
        return f"<RegistrySource {self.url}>"

    @property
    def denial(self) -> AccessDeniedError | None:
        return self._access.denial

    async def listings(
        self, *, offline: bool = False, allow_stale: bool = False
    ) -> list[Listing] | None:
        if not offline and trio.current_time() < self._no_index_until:
            return None
        url = f"{self.url}{_API}index.json"
        existed = partial(self._kept.has, url)
        request = self._kept.get(
            url,
            MAX_INDEX_BYTES,
            lambda body: _listings(body, url),
            offline=offline,
            allow_stale=allow_stale,
        )
        listings = await (request if offline else self._access.optional(request, existed))
        if not offline:
            self._indexed = listings is not None
            self._specs = frozenset(listing.spec for listing in listings or ())
            if listings is None:
                self._no_index_until = trio.current_time() + NO_INDEX_TTL
        return listings

    async def yanked(self) -> set[Spec]:
        """The yanked versions, which `listings` leaves out.

        Raises:
            NotFoundError: the registry has no index.
        """
        url = f"{self.url}{_API}index.json"
        fetched = await self._documents.get(
            url, limit=MAX_INDEX_BYTES, headers=self._secrets, check=parse_yanked
        )
        assert fetched is not None  # no ETag was sent
        with naming(source=shown(url)):
            return await trio.to_thread.run_sync(parse_yanked, fetched.body)

    async def versions(
        self, model: str, *, offline: bool = False, allow_stale: bool = False
    ) -> Versions | None:
        url = f"{self._model_url(model)}/versions.json"
        existed = partial(self._kept.has, url)
        with naming(source=shown(url)):
            request = self._kept.get(
                url,
                MAX_VERSIONS_BYTES,
                parse_versions,
                offline=offline,
                allow_stale=allow_stale,
            )
            listed = await (request if offline else self._access.optional(request, existed))
        if listed is None and not offline and not self._indexed:
            return await self._search_versions(model)
        return listed

    async def _search_versions(self, model: str) -> Versions | None:
        """The versions in a registry without lists: from its search, else from `latest`."""
        namespace, _, name = model.partition("/")
        if not name:
            return None
        hits = await self._request_search(name) or []
        versions = [hit.spec.version for hit in hits if hit.spec.model == model]
        if not versions:
            try:
                found = await self.manifest(Spec(namespace, name, LATEST))
            except MalformedError as exc:
                # A version with the name `latest` looks the same after it changed.
                log.warning("`latest` is not used: %s", exc)
                return None
            except AccessDeniedError:
                return None  # a 403 may mean "not found"; `denial` has a real refusal
            versions = [found[0].spec.version] if found else []
        return Versions.of(versions) if versions else None

    async def search(self, query: str) -> list[Listing]:
        """Search with the registry's own search if it has one, else in its index.

        Raises:
            NotFoundError: the registry has neither.
            AccessDeniedError: the registry refuses all requests.
        """
        hits = await self._request_search(query)
        if hits is None:
            listings = await self.listings(allow_stale=True)
            if listings is None:
                if self.denial:
                    raise self.denial
                what = "this registry has neither a search nor an index"
                hint = "check the URL; a model's full name works without a search"
                raise NotFoundError(what, source=self.url, hint=hint)
            return search(listings, query)
        return ranked((await self._in_any_order(query, hits)).values(), query)

    async def _in_any_order(self, query: str, found: list[Listing]) -> dict[Spec, Listing]:
        """`found`, and the versions that match every word of `query` in any order.

        A registry may search for the query as one phrase. So this sends one search per word, and
        adds the versions that are in every result or whose texts contain every word.
        """
        hits = {listing.spec: listing for listing in found}
        words = list(dict.fromkeys(query.split()))
        if not 2 <= len(words) <= MAX_WORDS:
            return hits
        results = [await self._request_search(word) or [] for word in words]
        each = [{item.spec: item for item in result} for result in results]
        union = {spec: item for part in each for spec, item in part.items()}
        by_text = {listing.spec for listing in search(union.values(), query)}
        more = (spec for spec in union if spec in by_text or all(spec in part for part in each))
        return hits | {spec: union[spec] for spec in more if spec not in hits}

    async def _request_search(self, query: str) -> list[Listing] | None:
        """The results of the registry's own search; None if it has no search."""
        if not self._searchable:
            return None
        url = f"{self.url}{_API}search?q={quote(query, safe='')}"
        try:
            fetched = await self._access.optional(
                self._documents.get(url, limit=MAX_SEARCH_BYTES, headers=self._secrets)
            )
        except NotFoundError:
            return None
        return _results(fetched.body) if fetched else None

    async def manifest(self, spec: Spec) -> tuple[Manifest, str] | None:
        url = f"{self._model_url(spec.model)}/{quote(spec.version, safe='+')}/manifest.yaml"
        parse = Once(partial(parse_manifest, expected=spec, base=self.url))
        try:
            fetched = await self._access.answered(
                self._documents.get(
                    url, limit=MAX_MANIFEST_BYTES, headers=self._secrets, check=parse
                )
            )
        except NotFoundError:
            return None
        except AccessDeniedError as exc:
            if self._access.may_be_absent(exc) and await self._lacks(spec):
                return None
            raise
        assert fetched is not None  # no ETag was sent
        base = base_of(fetched.final_url, spec.model) or self.url
        if base != self.url:
            parse = Once(partial(parse_manifest, expected=spec, base=base))
        with naming(source=shown(fetched.final_url)):
            manifest = await trio.to_thread.run_sync(parse, fetched.body)
        leftout.warn(manifest.spec, manifest.left_out)
        return manifest, base

    async def _lacks(self, spec: Spec) -> bool:
        """Whether this registry does not list `spec`, whose manifest it refuses."""
        if self.denial:
            await self.listings()
        if self.denial or spec in self._specs:
            return False
        found = await self.versions(spec.model) if spec.version != LATEST else None
        return found is None or spec.version not in found.versions

    def allows_unverified(self, base: str) -> bool:
        return self._allow_unverified and base.rstrip("/") == self.url.rstrip("/")

    async def signatures(self, base: str, spec: Spec, limit: int) -> bytes | None:
        url = f"{base.rstrip('/')}/{quote(signatures_key(spec), safe='/+')}"
        request = self._documents.get(
            url, limit=limit, headers=self._headers(base), check=parse_signatures
        )
        try:
            fetched = await self._access.optional(request)
        except NotFoundError:
            return None
        return fetched.body if fetched else None

    async def table(self, base: str, entry: FileEntry) -> ChunkTable | None:
        if entry.chunks is None:
            return None
        url = _content_url(base, "chunks", entry.digest)
        limit = table_bytes(entry.size, entry.chunks.size)
        parse = Once(partial(parse_table, size=entry.size, chunks=entry.chunks))
        try:
            fetched = await self._documents.get(
                url, limit=limit, headers=self._headers(base), check=parse
            )
        except NotFoundError as exc:
            what = "the registry does not have the chunk table that the manifest names"
            raise VanishedError(what, path=entry.path, source=shown(url)) from exc
        assert fetched is not None  # no ETag was sent
        with naming(path=entry.path, source=shown(url)):
            return parse(fetched.body)

    def locate(self, base: str, entry: FileEntry) -> Location:
        return Location(_content_url(base, "objects", entry.digest), self._headers(base))

    def locate_package(self, base: str, package: Package) -> list[Location]:
        """The locations of the package and its mirrors.

        A registry may be copied without changing its manifests. So a URL with the origin of the
        registry that the manifest was made for moves to `base`.
        """
        urls = [url for listed in package.urls if (url := _rebased(listed, package.registry, base))]
        return [Location(url, self._headers(url)) for url in dict.fromkeys(urls)]

    def _headers(self, base: str) -> dict[str, str]:
        """The token, if `base` has this registry's origin."""
        return self._secrets if target_of(base, signed=True).origin == self._origin else {}

    def _model_url(self, model: str) -> str:
        return f"{self.url}{_path(model)}"


def base_of(manifest_url: str, model: str) -> str | None:
    """The root of the registry of a manifest's URL; None if the URL has another layout."""
    parts = urlsplit(manifest_url)
    root, found, _ = parts.path.rpartition(f"/{_path(model)}/")
    return f"{parts.scheme}://{parts.netloc}{root}/" if found else None


def _path(model: str) -> str:
    return f"{_API}models/{quote(model, safe='/+')}"


def _bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _content_url(base: str, kind: str, digest: str) -> str:
    return f"{base.rstrip('/')}/{kind}/sha256/{digest[:2]}/{digest}"


def _rebased(listed: str, registry: str, base: str) -> str | None:
    """A package's absolute URL, moved to `base` if needed; None if it is invalid."""
    try:
        url = split_url(
            _joined(base, listed), signed=target_of(base, signed=True).origin.scheme in SIGNED
        )
    except ValueError:
        return None
    if url.origin.scheme in SIGNED and url.origin != target_of(base, signed=True).origin:
        return None  # no manifest may have this user sign a request for another bucket
    try:
        old = split_url(registry, signed=True)
    except ValueError:
        return str(url)
    if url.origin != old.origin:
        return str(url)
    root = old.target.rstrip("/") + "/"
    return base.rstrip("/") + "/" + url.target.removeprefix(root).lstrip("/")


def _joined(base: str, listed: str) -> str:
    """`urljoin`, which knows no s3 URLs."""
    scheme, _, rest = base.partition("://")
    joined = urljoin(f"https://{rest}", listed)
    return joined if urlsplit(listed).scheme else f"{scheme}{joined.removeprefix('https')}"


def _listings(body: bytes, url: str) -> list[Listing]:
    with naming(source=shown(url)):
        listings, skipped = parse_index(body)
    if skipped:
        log.warning("skipped %d malformed entries of the index (from %s)", skipped, shown(url))
    return listings


def _results(body: bytes) -> list[Listing] | None:
    """Axon's search result, an array with items like those of the index.

    None if it is anything else: many web servers answer every path with a page.
    """
    try:
        items = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(items, list):
        return None
    index = json.dumps({"apiVersion": API_VERSION, "models": items}).encode()
    return parse_index(index)[0]
