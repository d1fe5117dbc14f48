"""The documents of an OCI registry: manifests and small blobs, each compared with its digest.

Below oci.py and oci_versions.py. Trio only.
"""

from __future__ import annotations

import trio

from axonfs.errors import MalformedError, NotFoundError
from axonfs.http_client.documents import Documents
from axonfs.http_client.location import Location
from axonfs.oci.manifest import (
    MAX_CONFIG_BYTES,
    MAX_MANIFEST_BYTES,
    Descriptor,
    Model,
    digest_of,
    parse,
)


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
        return await self._found(f"{repository}/manifests/{tag}")

    async def referrers(self, repository: str, digest: str) -> bytes | None:
        """The registry's index of what refers to a manifest; None if it keeps no such lists."""
        return await self._found(f"{repository}/referrers/sha256:{digest}")

    async def _found(self, path: str) -> bytes | None:
        try:
            fetched = await self._documents.get(f"{self._root}{path}", limit=MAX_MANIFEST_BYTES)
        except NotFoundError:
            return None
        assert fetched is not None  # no ETag was sent
        return fetched.body

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
