"""The interfaces of a source of models: a registry or a hub. Other packages know only these.

A source resolves names to manifests, and files of a manifest to locations. It keeps no important
state: the layer above keeps the results. Trio only; network calls raise AxonError and may be
cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from axonfs.errors import AccessDeniedError
from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.document import Document
from axonfs.formats.listing import Listing, Versions
from axonfs.formats.manifest import FileEntry, Manifest
from axonfs.formats.package import Package
from axonfs.http_client.location import Location
from axonfs.names import Spec


class Source(Protocol):
    """One source.

    `offline` answers from the stored documents and sends nothing; `allow_stale` falls back to
    them when the source cannot be reached.
    """

    @property
    def name(self) -> str:
        """A short name for messages, without credentials."""
        ...

    @property
    def url(self) -> str:
        """Its URL without credentials; the bases of its objects are below it."""
        ...

    @property
    def denial(self) -> AccessDeniedError | None:
        """Its last refusal, if it refused every request; what it has is unknown then."""
        ...

    async def listings(
        self, *, offline: bool = False, allow_stale: bool = False
    ) -> list[Listing] | None:
        """All its listings; None if it has no index (or, offline, none is stored)."""
        ...

    async def versions(
        self, model: str, *, offline: bool = False, allow_stale: bool = False
    ) -> Versions | None:
        """The versions of `namespace/name`; None if the source does not list them."""
        ...

    async def manifest(self, spec: Spec) -> tuple[Manifest, str] | None:
        """The manifest of `spec` and the base URL of its objects; None if the source does not
        have the version."""
        ...

    async def signatures(self, base: str, spec: Spec, limit: int) -> bytes | None:
        """The file of a version's signatures; None if it has none.

        Raises:
            MalformedError: it has more than `limit` bytes.
        """
        ...

    async def table(self, base: str, entry: FileEntry) -> ChunkTable | None:
        """The chunk table of a file's object; None if its manifest names none."""
        ...

    def allows_unverified(self, base: str) -> bool:
        """Whether files below `base` may be read without a digest to verify them."""
        ...

    def locate(self, base: str, entry: FileEntry) -> Location:
        """The location of the bytes of a file's object. Sends nothing."""
        ...

    def locate_package(self, base: str, package: Package) -> list[Location]:
        """The locations of a version's package, in the order to try them. Sends nothing."""
        ...

    async def search(self, query: str) -> list[Listing]:
        """The versions that match `query`, the best first."""
        ...


class Hub(Source, Protocol):
    """A source with a namespace of its own, whose versions are commits.

    It has no listings. It gets requests only for models that a program or a command names.
    """

    namespace: str

    async def alias(
        self, spec: Spec, *, offline: bool = False, allow_stale: bool = False
    ) -> str | None:
        """The version that a branch, a tag or `latest` names now; a version names itself. None if
        the name does not exist."""
        ...

    async def models(self) -> list[str] | None:
        """The names of its models, without the namespace and the alias, if it lists them."""
        ...

    async def facts(self, spec: Spec, *, offline: bool = False) -> Mapping[str, str | int]:
        """Properties of a model that are not part of a version, like downloads, by label."""
        ...


class DocumentCache(Protocol):
    """Keeps documents between runs; the store implements it. Calls are short and blocking."""

    def document(self, url: str) -> Document | None: ...

    def put_document(self, url: str, document: Document) -> None: ...

    def touch_document(self, url: str, fetched: float) -> None: ...
