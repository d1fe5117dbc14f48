"""What a source of models is: a registry, a hub. The rest of the program knows only this.

A source resolves names to manifests, and a manifest's files to where their bytes are. It keeps no
state that matters: what was resolved is kept by the layer above. Trio only; network calls raise
AxonError and may be cancelled.
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
from axonfs.http_client.bodies import Location
from axonfs.names import Spec


class Source(Protocol):
    """One source.

    `offline` answers from the stored documents and sends nothing; `allow_stale` falls back to
    them when the source cannot be reached.
    """

    @property
    def name(self) -> str:
        """For people: short, without credentials."""
        ...

    @property
    def url(self) -> str:
        """Where it is, without credentials; objects found through it have bases below it."""
        ...

    @property
    def denial(self) -> AccessDeniedError | None:
        """Its refusal, if it answered every request with one; it may have anything then."""
        ...

    async def listings(
        self, *, offline: bool = False, allow_stale: bool = False
    ) -> list[Listing] | None:
        """Everything it lists; None if it has no index (or none is stored, where `offline`)."""
        ...

    async def versions(
        self, model: str, *, offline: bool = False, allow_stale: bool = False
    ) -> Versions | None:
        """The versions of `namespace/name`; None if it does not say."""
        ...

    async def manifest(self, spec: Spec) -> tuple[Manifest, str] | None:
        """The manifest of `spec` and the base that its objects are located from; None if there
        is no such version."""
        ...

    async def table(self, base: str, entry: FileEntry) -> ChunkTable | None:
        """The chunk table of a file's object; None if its manifest names none."""
        ...

    def allows_unverified(self, base: str) -> bool:
        """Whether files below `base` may be read though nothing tells if their bytes are right."""
        ...

    def locate(self, base: str, entry: FileEntry) -> Location:
        """Where the bytes of a file's object are. Sends nothing."""
        ...

    def locate_package(self, base: str, package: Package) -> list[Location]:
        """Where the package of a version is, the first to ask first. Sends nothing."""
        ...

    async def search(self, query: str) -> list[Listing]:
        """What matches `query`, best first."""
        ...


class Hub(Source, Protocol):
    """A source that serves one namespace alone, whose versions are commits.

    It lists nothing by itself and is asked only for models that somebody names.
    """

    namespace: str

    async def alias(
        self, spec: Spec, *, offline: bool = False, allow_stale: bool = False
    ) -> str | None:
        """The version that a branch, a tag or `latest` stands for now, a version itself as it
        is; None if there is no such name."""
        ...

    async def facts(self, spec: Spec, *, offline: bool = False) -> Mapping[str, str | int]:
        """What it says about a model that is no part of a version, by label: downloads, say."""
        ...


class DocumentCache(Protocol):
    """Where documents are kept between runs; the store is one. Calls are short and blocking."""

    def document(self, url: str) -> Document | None: ...

    def put_document(self, url: str, document: Document) -> None: ...

    def touch_document(self, url: str, fetched: float) -> None: ...
