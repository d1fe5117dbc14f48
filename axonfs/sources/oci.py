"""An OCI registry as a source: models/oci/<alias>/<repository>/<tag or digest>.

A repository is a model, and a manifest with its digest is a version, which never changes. Tags are
names for versions, and may move. As of a hub's commit, the files that an OCI manifest names become
a manifest of kind Snapshot, which is kept like any other one. Trio only.

    version   sha256-<digest of the OCI manifest>
    base      oci://<host>/<repository>@sha256:<digest>/
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Iterable, Mapping

import trio

from axonfs.errors import (
    AccessDeniedError,
    AxonError,
    DeadlineError,
    MalformedError,
    NotFoundError,
    UnavailableError,
    UsageError,
    VanishedError,
    naming,
)
from axonfs.formats import leftout
from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.listing import Listing, Versions, ranked
from axonfs.formats.manifest import FileEntry, Manifest
from axonfs.formats.package import Package
from axonfs.http_client.bodies import Bodies
from axonfs.http_client.documents import Documents
from axonfs.http_client.location import Location
from axonfs.names import (
    LATEST,
    OCI,
    Spec,
    newest,
    oci_digest,
    oci_version,
    version_key,
)
from axonfs.oci import Place, place_of
from axonfs.oci.config import About, about
from axonfs.oci.credentials import credentials_of
from axonfs.oci.manifest import MAX_MANIFEST_BYTES, Model, digest_of, parse
from axonfs.oci.place import is_tag
from axonfs.settings.store_urls import oci_repository
from axonfs.sources.kept import KeptDocuments
from axonfs.sources.oci_documents import OciDocuments, location_of
from axonfs.sources.oci_lists import OciLists
from axonfs.sources.oci_snapshot import snapshot
from axonfs.sources.oci_tables import OciTables
from axonfs.sources.source import DocumentCache
from axonfs.steps import Cause, Step

log = logging.getLogger(__name__)

MAX_PAGE_BYTES = 4 << 20
# Tags of one repository that are listed with their digests, the newest by name; each is a request.
MAX_TAGS = 200
AT_ONCE = 16
FOUND = 50


class OciRegistry:
    """The registry at `place`; implements `axonfs.sources.source.Hub`.

    Args:
        documents: with a signer for oci URLs.
        cache: answers of earlier runs, for use while the registry is down.
        bodies: reads what is needed whole: archives to list them, files whose tables are gone.
    """

    namespace = OCI

    def __init__(
        self,
        place: Place,
        documents: Documents,
        *,
        cache: DocumentCache | None = None,
        bodies: Bodies | None = None,
    ) -> None:
        self.url = place.url + "/"
        self.name = place.url
        self._place = place
        self._root = f"oci://{place.host}/v2/"
        self._documents = documents
        self._bodies = bodies
        self._proven = OciDocuments(place.host, documents)
        self._tables = OciTables(self._proven, bodies)
        self._lists = OciLists(place.host, documents, cache)
        self._kept = KeptDocuments(documents, cache, {})

    def __repr__(self) -> str:
        return f"<OciRegistry {self.url}>"

    @property
    def denial(self) -> AccessDeniedError | None:
        """None: a registry refuses single repositories, not all requests."""
        return None

    async def listings(
        self, *, offline: bool = False, allow_stale: bool = False
    ) -> list[Listing] | None:
        """None: most registries do not list what they have."""
        return None

    def repository(self, model: str) -> str | None:
        """The repository of a model; None if the registry cannot have such a name."""
        rest = "/".join(model.split("/")[2:])
        with contextlib.suppress(ValueError):
            return self._place.prefix + oci_repository(rest) if rest else None
        return None

    async def alias(
        self, spec: Spec, *, offline: bool = False, allow_stale: bool = False
    ) -> str | None:
        """The version that a tag names now; None if the tag or the repository does not exist."""
        if oci_digest(spec.version):
            return spec.version
        repository = self.repository(spec.model)
        if repository is None or not is_tag(spec.version):
            return None
        found = await self._tagged(
            repository, spec.version, offline=offline, allow_stale=allow_stale
        )
        if found is None and spec.version == LATEST:
            tags = await self._tags(repository, offline=offline, allow_stale=allow_stale)
            named = newest(tags or [])
            found = named and await self._tagged(
                repository, named, offline=offline, allow_stale=allow_stale
            )
        return found or None

    async def _tagged(
        self, repository: str, tag: str, *, offline: bool = False, allow_stale: bool = False
    ) -> str | None:
        """The version that a tag names; that of the only manifest if it names an index of one."""
        url = f"{self._root}{repository}/manifests/{tag}"
        with naming(source=self._named(repository, f":{tag}")):
            return await self._kept.get(
                url, MAX_MANIFEST_BYTES, _version, offline=offline, allow_stale=allow_stale
            )

    async def versions(
        self, model: str, *, offline: bool = False, allow_stale: bool = False
    ) -> Versions | None:
        """The tags, and the versions that they name."""
        repository = self.repository(model)
        if repository is None:
            return None
        tags = await self._tags(repository, offline=offline, allow_stale=allow_stale)
        if tags is None:
            return None
        listed = sorted(tags, key=version_key)[-MAX_TAGS:]
        if len(listed) < len(tags):
            log.info("%s has %d tags; %d are listed", self._named(repository), len(tags), MAX_TAGS)
        named = await self._versions_of(repository, listed, offline=offline)
        latest = named.get(LATEST) or named.get(newest(list(named)) or "")
        return Versions(tuple(sorted(set(named.values()))), latest, named)

    async def _versions_of(
        self, repository: str, tags: Iterable[str], *, offline: bool
    ) -> dict[str, str]:
        """The versions by tag; what cannot be read is left out.

        Raises:
            AxonError: the registry, which lists the tags, refuses all of them or does not answer.
        """
        found: dict[str, str] = {}
        faults: list[AxonError] = []
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def ask(tag: str) -> None:
            async with limiter:
                try:
                    version = await self._tagged(repository, tag, offline=offline, allow_stale=True)
                except AxonError as exc:
                    log.info("the tag is not listed: %s", exc)
                    faults.append(exc)
                    return
            if version:
                found[tag] = version

        async with trio.open_nursery() as nursery:
            for tag in tags:
                nursery.start_soon(ask, tag)
        away = [exc for exc in faults if not isinstance(exc, MalformedError)]
        if away and not found:
            raise away[0]
        return found

    async def _tags(self, repository: str, *, offline: bool, allow_stale: bool) -> list[str] | None:
        """All tags of models; None if the repository does not exist."""
        path = f"{repository}/tags/list"
        with naming(source=self._named(repository)):
            if offline:
                return await self._lists.stored(path)
            try:
                return await self._lists.names(path, "tags")
            except NotFoundError:
                return None
            except (UnavailableError, DeadlineError):
                stored = await self._lists.stored(path) if allow_stale else None
                if stored is None:
                    raise
                return stored

    async def models(self) -> list[str] | None:
        """The repositories below the prefix; None if the registry does not list them."""
        try:
            names = await self._lists.names("_catalog", "repositories")
        except (AccessDeniedError, NotFoundError):
            return None
        return [name for name in map(self._own, names) if name]

    async def facts(self, spec: Spec, *, offline: bool = False) -> Mapping[str, str | int]:
        """Empty: a registry knows nothing of a model beside its versions."""
        return {}

    async def manifest(self, spec: Spec) -> tuple[Manifest, str] | None:
        """A snapshot of the version in `spec`; None if the registry does not have it."""
        repository, digest = self.repository(spec.model), oci_digest(spec.version)
        if repository is None or digest is None:
            return None
        with naming(source=self._named(repository, f"@sha256:{digest}")):
            model = await self._model(repository, digest)
            if model is None:
                return None
            told = about(await self._config(repository, model), model.annotations)
            base = f"{self._named(repository)}@sha256:{digest}/"
            manifest = await self._snapshot(spec, model, told, base)
        leftout.warn(spec, manifest.left_out)
        return manifest, base

    async def _config(self, repository: str, model: Model) -> bytes:
        """The bytes of a model's config; empty if the registry lacks it, as the files do not need
        it."""
        try:
            return await self._proven.config(repository, model)
        except VanishedError as exc:
            log.info("a model has no config: %s", exc)
            return b""

    async def _snapshot(self, spec: Spec, model: Model, told: About, base: str) -> Manifest:
        left = threading.Event()
        locate = functools.partial(location_of, base)
        try:
            purpose = f"for the layers of {spec} that are archives"
            with Step(Cause.DOCUMENT, "reading", about=purpose, source=base):
                return await trio.to_thread.run_sync(
                    snapshot,
                    spec,
                    model,
                    told,
                    locate,
                    self._bodies,
                    left.is_set,
                    abandon_on_cancel=True,
                )
        finally:
            left.set()

    async def _model(self, repository: str, digest: str) -> Model | None:
        """The model of the manifest with this digest, or of the only one of the index with it; it
        names the chunk tables that the registry keeps."""
        try:
            raw = await self._proven.manifest(repository, digest)
            image, model = await self._proven.model(repository, raw)
        except NotFoundError:
            return None
        if not model.has_tables:
            return model
        return model.with_tables(await self._tables.kept(repository, digest_of(image)))

    async def signatures(self, base: str, spec: Spec, limit: int) -> bytes | None:
        """None: signatures in OCI registries are of their manifests, which is another statement."""
        return None

    async def table(self, base: str, entry: FileEntry) -> ChunkTable | None:
        """The chunk table that the file's layer names; None if it names none."""
        return await self._tables.table(base, entry)

    def allows_unverified(self, base: str) -> bool:
        """False: every layer has a digest."""
        return False

    def locate(self, base: str, entry: FileEntry) -> Location:
        """The blob with a file's bytes. It may lead to a signed URL of the registry's storage."""
        return location_of(base, entry.digest)

    def locate_package(self, base: str, package: Package) -> list[Location]:
        """The blob of a layer that is an archive."""
        return [location_of(base, package.digest)] if package.digest else []

    async def search(self, query: str) -> list[Listing]:
        """The repositories whose names have every word of `query`, each with its newest tag.

        Raises:
            NotFoundError: the registry does not list its repositories.
        """
        words = query.casefold().split()
        with naming(source=self.name):
            names = await self._repositories(query)
        found = [name for name in map(self._own, names) if name and all(w in name for w in words)]
        listed = [Listing(Spec(OCI, f"{self._place.alias}/{name}", LATEST)) for name in found]
        return ranked(listed, query)[:FOUND]

    async def _repositories(self, query: str) -> list[str]:
        """The repositories that the registry lists; else the one whose name is `query`."""
        try:
            return await self._lists.names("_catalog", "repositories")
        except (AccessDeniedError, NotFoundError, UnavailableError) as exc:
            if isinstance(exc, UnavailableError) and exc.status is None:
                raise
            one = self._place.prefix + query
            with contextlib.suppress(AxonError):
                if await self._tags(one, offline=False, allow_stale=False):
                    return [one]
            what = f"the registry does not list its repositories: {exc.what}"
            hint = f"give the full name of one, as {OCI}/{self._place.alias}/REPOSITORY"
            if isinstance(exc, AccessDeniedError):
                hint += f", or {exc.hint}"
            raise NotFoundError(what, source=self.name, hint=hint) from exc

    async def ping(self) -> None:
        """Return if the registry answers and accepts the log-in.

        Raises:
            AxonError: it does not.
        """
        fetched = await self._documents.get(self._root, limit=MAX_PAGE_BYTES)
        if fetched and fetched.body.lstrip()[:1] == b"<":
            what = "it answers with a web page, so it is no OCI registry"
            raise MalformedError(what, source=self.name, hint="check the URL")

    def logged_in(self) -> bool:
        """Whether docker has credentials for this registry. Blocking."""
        return credentials_of(self._place.host) is not None

    def _own(self, repository: str) -> str | None:
        """The name of a repository below the prefix; None for others."""
        name = repository.removeprefix(self._place.prefix)
        ours = repository.startswith(self._place.prefix)
        return name if ours else None

    def _named(self, repository: str, reference: str = "") -> str:
        return f"oci://{self._place.host}/{repository}{reference}"


def oci_registries(
    urls: Iterable[str],
    documents: Documents,
    cache: DocumentCache | None,
    bodies: Bodies | None = None,
) -> dict[str, OciRegistry]:
    """Those of the registries at `urls` that are OCI registries, by `names.hub_of`. Sends nothing.

    Raises:
        UsageError: two of them have the same alias.
    """
    found: dict[str, OciRegistry] = {}
    for place in (place_of(url) for url in urls if url.startswith("oci:")):
        name = f"{OCI}/{place.alias}"
        if name in found:
            what = f"two registries would both be {name}: {found[name].name} and {place.url}"
            raise UsageError(what, hint="give one another name: oci://…?alias=NAME")
        found[name] = OciRegistry(place, documents, cache=cache, bodies=bodies)
    return found


def _version(raw: bytes) -> str:
    """The version of a manifest: its digest, or that of the only manifest of an index."""
    found = parse(raw)
    return oci_version(found if isinstance(found, str) else digest_of(raw))
