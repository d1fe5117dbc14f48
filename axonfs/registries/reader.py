"""A registry of any kind, read from threads: its versions, manifests, chunk tables and objects.

The documents come through `RegistrySource`, like those of a mount, on a trio loop in a thread of
its own. The bytes of objects are read by the calling thread. Every method blocks; any thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import trio

from axonfs.errors import (
    AccessDeniedError,
    CorruptError,
    NotFoundError,
    UnavailableError,
    VanishedError,
    naming,
)
from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.layout import object_key
from axonfs.formats.listing import Versions
from axonfs.formats.manifest import DEFAULT_CHUNK_SIZE, FileEntry, Manifest
from axonfs.http_client import (
    Bodies,
    Documents,
    Limits,
    Trust,
    check_registry,
    path_of,
)
from axonfs.names import Spec
from axonfs.registries.places import refuse_oci
from axonfs.settings.settings import Settings
from axonfs.signatures import limit_of
from axonfs.sources import RegistrySigners, RegistrySource
from axonfs.sources.blob import Blob, size_of
from axonfs.sources.whole import Sink, read_body

T = TypeVar("T")


class Call(Protocol):
    """Runs an async function on the trio loop, and returns its result."""

    def __call__(self, ask: Callable[[], Awaitable[T]], /) -> T: ...


class Listed(Protocol):
    """A registry whose versions are looked up."""

    @property
    def name(self) -> str: ...

    def specs(self) -> dict[Spec, bool]: ...

    def versions(self, model: str) -> Versions | None: ...


class Origin(Protocol):
    """A registry that objects are read from; the methods are those of `Reader`."""

    @property
    def name(self) -> str: ...

    def manifest(self, spec: Spec) -> tuple[Manifest, str] | None: ...

    def signatures(self, base: str, manifest: Manifest) -> bytes | None: ...

    def table(self, base: str, entry: FileEntry) -> ChunkTable | None: ...

    def read(
        self, base: str, entry: FileEntry, sink: Sink, stopped: Callable[[], bool] = bool
    ) -> None: ...

    def whereabouts(self, base: str, entry: FileEntry) -> str: ...


class Reader:
    """The registry of `source`."""

    def __init__(self, source: RegistrySource, bodies: Bodies, call: Call) -> None:
        self._source = source
        self._bodies = bodies
        self._call = call

    def __repr__(self) -> str:
        return f"<Reader {self.url}>"

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def url(self) -> str:
        return self._source.url

    def specs(self) -> dict[Spec, bool]:
        """The versions that the registry's index names, and whether each is yanked.

        Raises:
            NotFoundError: it has no index.
        """
        found = self._call(self._source.listings)
        if found is None:
            if self._source.denial:
                raise self._source.denial
            what = "the registry has no index.json, so its versions are not known"
            raise NotFoundError(what, source=self.name, hint="check the URL")
        yanked = self._call(self._source.yanked)
        return dict.fromkeys((listing.spec for listing in found), False) | dict.fromkeys(
            yanked, True
        )

    def versions(self, model: str) -> Versions | None:
        """The versions in the model's versions.json; None if there is none."""
        return self._call(lambda: self._source.versions(model))

    def manifest(self, spec: Spec) -> tuple[Manifest, str] | None:
        """The manifest, and the URL that its objects are below; None if there is none."""
        return self._file(lambda: self._source.manifest(spec))

    def signatures(self, base: str, manifest: Manifest) -> bytes | None:
        """The file of a version's signatures; None if there is none.

        Raises:
            MalformedError: it is larger than signatures of this manifest can be.
        """
        limit = limit_of(manifest)
        return self._call(lambda: self._source.signatures(base, manifest.spec, limit))

    def table(self, base: str, entry: FileEntry) -> ChunkTable | None:
        """The chunk table of a file, compared with the manifest; None if it has none."""
        return self._file(lambda: self._source.table(base, entry))

    def _file(self, ask: Callable[[], Awaitable[T]]) -> T:
        """One of the many files. If a directory's cannot be read, the others may be sound.

        Raises:
            VanishedError: it cannot be read.
        """
        try:
            return self._call(ask)
        except (AccessDeniedError, UnavailableError) as exc:
            if not self.url.startswith("file:"):
                raise
            check_registry(path_of(self.url))
            raise VanishedError(exc.what, source=exc.source) from exc

    def read(
        self, base: str, entry: FileEntry, sink: Sink, stopped: Callable[[], bool] = bool
    ) -> None:
        """Pass the bytes of a file's object to `sink`, in order and chunk by chunk; they are not
        compared with anything. Transient faults are retried.

        Args:
            stopped: polled several times a second.

        Raises:
            StoppedError: `stopped` returned true.
            AxonError: the registry does not have the object, or does not send all of it.
        """
        if not entry.size:
            return
        location = self._source.locate(base, entry)
        unit = entry.chunks.size if entry.chunks else DEFAULT_CHUNK_SIZE
        if location.url.startswith("file:"):
            _read_file(Path(path_of(location.url)), entry.size, sink, unit)
        else:
            read_body(self._bodies, location, entry.size, sink, unit, stopped)

    def whereabouts(self, base: str, entry: FileEntry) -> str:
        """Where the object of a file is, for messages."""
        return f"{self.name}/{object_key(entry.digest)}"


def _read_file(path: Path, size: int, sink: Sink, unit: int) -> None:
    with naming(source=str(path)):
        try:
            found = size_of(path)
        except OSError as exc:
            raise _lacking(path, exc, str(exc.strerror)) from exc
        if found != size:
            raise CorruptError(f"the object has {found or 0:,} bytes instead of {size:,}")
        try:
            Blob(path).read(0, size, lambda _, piece: sink(piece), unit=unit)
        except UnavailableError as exc:
            raise _lacking(path, exc, exc.what) from exc


def _lacking(path: Path, exc: Exception, why: str) -> VanishedError:
    """The error for one object that cannot be read.

    Raises:
        UnavailableError: the registry itself is not there any more.
    """
    check_registry(str(path))
    if isinstance(exc, FileNotFoundError):
        return VanishedError("the registry does not have the object")
    return VanishedError(f"the object cannot be read: {why}")


@contextlib.contextmanager
def readers(settings: Settings, *urls: str) -> Iterator[list[Reader]]:
    """Readers of the registries at `urls`, until the end of the block.

    Raises:
        UsageError: one of them is an OCI registry.
    """
    for url in urls:
        refuse_oci(url)
    with clients(settings, *urls) as made:
        yield [made.reader(url) for url in urls]


@dataclass(frozen=True, slots=True)
class Clients:
    """What reads registries of any kind."""

    settings: Settings
    signers: RegistrySigners
    documents: Documents
    bodies: Bodies
    call: Call

    def reader(self, url: str) -> Reader:
        """The reader of a registry that is no OCI registry."""
        source = RegistrySource(url, self.documents, token=self.settings.token(url))
        return Reader(source, self.bodies, self.call)


@contextlib.contextmanager
def clients(settings: Settings, *urls: str) -> Iterator[Clients]:
    """The clients for the registries at `urls`, until the end of the block."""
    limits = Limits.within(settings.deadline, settings.retries)
    trust, signers = Trust(settings.ca_bundle), RegistrySigners(settings.ca_bundle)
    signers.learn(urls, settings.tokens)
    documents = Documents(limits, trust, signers=signers.by_scheme)
    with Bodies(limits, trust, signers=signers.by_scheme) as bodies, _loop(documents) as call:
        yield Clients(settings, signers, documents, bodies, call)


@contextlib.contextmanager
def _loop(documents: Documents) -> Iterator[Call]:
    """Run trio with `documents` in a thread until the end of the block; yield how to call it."""
    ready: Future[trio.lowlevel.TrioToken] = Future()
    stopping = trio.Event()

    async def serve() -> None:
        async with documents:
            ready.set_result(trio.lowlevel.current_trio_token())
            await stopping.wait()

    thread = threading.Thread(target=trio.run, args=(serve,), name="documents", daemon=True)
    thread.start()
    token = ready.result()

    def call(ask: Callable[[], Awaitable[T]]) -> T:
        return trio.from_thread.run(ask, trio_token=token)

    try:
        yield call
    finally:
        trio.from_thread.run_sync(stopping.set, trio_token=token)
        thread.join()
