"""The documents of an OCI registry: manifests and small blobs, each compared with its digest.

Below oci.py and oci_versions.py. Trio only.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import trio

from axonfs.errors import (
    MalformedError,
    NotFoundError,
    UnavailableError,
    VanishedError,
    naming,
)
from axonfs.formats.chunktable import ChunkTable, parse_table
from axonfs.formats.manifest import FileEntry
from axonfs.http_client.documents import Documents
from axonfs.http_client.location import Location
from axonfs.oci.manifest import (
    MAX_CONFIG_BYTES,
    MAX_MANIFEST_BYTES,
    Descriptor,
    Model,
    digest_of,
    document,
    parse,
)
from axonfs.oci.referrers import (
    MAX_ARTIFACTS,
    Artifact,
    Listed,
    listed,
    parse_artifact,
    table_of,
    tag_of,
)

MAX_PAGES = 200  # of one list of what refers to a model
_NO_LISTS = frozenset({400, 405, 501})  # answers by which registries say that they keep none


class OciDocuments:
    """Those of the registry at `host`.

    Args:
        documents: with a signer for oci URLs.
    """

    def __init__(self, host: str, documents: Documents) -> None:
        self._root = f"oci://{host}/v2/"
        self._documents = documents

    async def manifest(self, repository: str, digest: str) -> bytes:
        """
        Raises:
            NotFoundError: the registry does not have it.
        """
        url = f"{self._root}{repository}/manifests/sha256:{digest}"
        return await self._proven(url, digest, MAX_MANIFEST_BYTES)

    async def model(self, repository: str, raw: bytes) -> tuple[bytes, Model]:
        """The model of the manifest `raw`, or of the only manifest of that index; and its
        manifest.

        Raises:
            NotFoundError: the registry does not have the index's manifest.
        """
        for _ in range(2):
            found = await trio.to_thread.run_sync(parse, raw)
            if isinstance(found, Model):
                return raw, found
            raw = await self.manifest(repository, found)
        raise MalformedError("it is an index of an index, and no model")

    async def config(self, repository: str, model: Model) -> bytes:
        """The bytes of a model's config; empty if it is no document."""
        blob = model.config
        if not 2 < blob.size <= MAX_CONFIG_BYTES or "json" not in blob.media_type:
            return b""
        return await self.blob(repository, blob, blob.size)

    async def blob(self, repository: str, blob: Descriptor, limit: int) -> bytes:
        """
        Raises:
            MalformedError: it is larger than `limit`.
        """
        if blob.size > limit:
            raise MalformedError(f"a blob has {blob.size:,} bytes, more than {limit:,}")
        url = f"{self._root}{repository}/blobs/sha256:{blob.digest}"
        return await self._proven(url, blob.digest, blob.size)

    async def named(self, repository: str, tag: str) -> bytes | None:
        """What a tag names now; None if it does not exist."""
        url = f"{self._root}{repository}/manifests/{tag}"
        try:
            fetched = await self._documents.get(url, limit=MAX_MANIFEST_BYTES, check=document)
        except NotFoundError:
            return None
        assert fetched is not None  # no ETag was sent
        return fetched.body

    async def artifacts(self, repository: str, digest: str) -> list[Listed]:
        """The artifacts of AxonFS that refer to a model's manifest: those that the registry lists,
        else those in the index under the tag for them. A registry may list what refers to a
        manifest, and still have a client that keeps the index.

        Raises:
            MalformedError: a list is no index, does not end, or names too many of them.
        """
        found, tag = await self._referrers(repository, digest), tag_of(digest)
        if not found and (raw := await self.named(repository, tag)):
            with naming(source=f"{self._root}{repository}/manifests/{tag}"):
                found = listed(raw)
        if len(found) > MAX_ARTIFACTS:
            what = f"more than {MAX_ARTIFACTS} artifacts of AxonFS refer to the model"
            raise MalformedError(what)
        return found

    async def artifact(self, repository: str, digest: str, subject: str) -> Artifact:
        """The artifact with this digest, which refers to the manifest `subject`.

        Raises:
            NotFoundError: the registry does not have it.
        """
        raw = await self.manifest(repository, digest)
        return await trio.to_thread.run_sync(parse_artifact, raw, subject)

    async def table(self, base: str, entry: FileEntry) -> ChunkTable | None:
        """The chunk table of a file of a version, compared with its digest; None if the file names
        none."""
        blob = table_of(entry.size, entry.chunks)
        if blob is None or entry.chunks is None:
            return None
        with naming(path=entry.path, source=base):
            try:
                raw = await self.blob(repository_of(base)[1], blob, blob.size)
            except VanishedError as exc:
                what = "the registry does not have the chunk table that the manifest names"
                raise VanishedError(what, source=exc.source) from exc
            except MalformedError as exc:
                exc.what = f"the chunk table that the manifest names: {exc.what}"
                raise
            return parse_table(raw, size=entry.size, chunks=entry.chunks)

    async def _referrers(self, repository: str, digest: str) -> list[Listed]:
        """Those in the pages of the registry's list; none if it keeps no such lists."""
        path = f"{self._root}{repository}/referrers/sha256:{digest}"
        found = list[Listed]()
        try:
            page = await self._documents.get(path, limit=MAX_MANIFEST_BYTES, check=listed)
        except NotFoundError:
            return found
        except UnavailableError as exc:
            if exc.status in _NO_LISTS:
                return found
            raise
        for _ in range(MAX_PAGES):
            assert page is not None  # no ETag was sent
            found += listed(page.body)
            if not page.following or len(found) > MAX_ARTIFACTS:
                return found
            url = f"{path}?{urlsplit(page.following).query}"
            page = await self._documents.get(url, limit=MAX_MANIFEST_BYTES, check=listed)
        raise MalformedError("the registry's list of what refers to the model does not end")

    async def _proven(self, url: str, digest: str, limit: int) -> bytes:
        fetched = await self._documents.get(url, limit=limit)
        assert fetched is not None  # no ETag was sent
        found = digest_of(fetched.body)
        if found != digest:
            if fetched.body.lstrip()[:1] == b"<":
                what = "the registry answered with a web page"
                raise MalformedError(what, hint="check the registry's URL")
            what = f"the registry sent other bytes: their sha256 is {found}, not {digest}"
            raise MalformedError(what)
        return fetched.body


def repository_of(base: str) -> tuple[str, str]:
    """The host and the repository of a version's base, `oci://host/repository@sha256:…/`."""
    host, _, rest = base.removeprefix("oci://").partition("/")
    return host, rest.rpartition("@")[0]


def location_of(base: str, digest: str) -> Location:
    """The blob of a version. It may lead to a signed URL of the registry's storage."""
    host, repository = repository_of(base)
    return Location(f"oci://{host}/v2/{repository}/blobs/sha256:{digest}", signed=True)
