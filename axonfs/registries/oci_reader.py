"""An OCI registry as one side of a copy, read from threads. Every method blocks; any thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.listing import Versions
from axonfs.formats.manifest import DEFAULT_CHUNK_SIZE, FileEntry, Manifest
from axonfs.http_client import Bodies
from axonfs.names import Spec
from axonfs.oci import Place
from axonfs.oci.config import About
from axonfs.registries.reader import Call, Clients
from axonfs.sources.oci_documents import location_of
from axonfs.sources.oci_versions import OciVersions, Tagged
from axonfs.sources.whole import Sink, read_body


class OciReader:
    """The registry at `place`, which has models as `sources/oci_versions.py` says."""

    def __init__(self, place: Place, clients: Clients) -> None:
        self.place = place
        self._source = OciVersions(place, clients.documents)
        self._bodies: Bodies = clients.bodies
        self._call: Call = clients.call

    def __repr__(self) -> str:
        return f"<OciReader {self.name}>"

    @property
    def name(self) -> str:
        return self._source.name

    def specs(self) -> dict[Spec, bool]:
        """A version for each tag that the registry lists. None counts as yanked: that is known when
        the version is read.

        Raises:
            NotFoundError: it lists none.
        """
        return dict.fromkeys(self._call(self._source.specs), False)

    def versions(self, model: str) -> Versions | None:
        """The tags of a model; None if there is no such repository."""
        return self._call(lambda: self._source.versions(model))

    def tagged(self, spec: Spec) -> Tagged | None:
        """What the tag of a version names; None if it does not exist."""
        return self._call(lambda: self._source.tagged(spec))

    def config(self, found: Tagged) -> About:
        """What the config of a model says of it."""
        return self._call(lambda: self._source.config(found))

    def table(self, base: str, entry: FileEntry) -> ChunkTable | None:
        """The chunk table of a file, compared with the manifest; None if it has none."""
        return self._call(lambda: self._source.table(base, entry))

    def read(
        self, base: str, entry: FileEntry, sink: Sink, stopped: Callable[[], bool] = bool
    ) -> None:
        """As `Reader.read`."""
        if entry.size:
            unit = entry.chunks.size if entry.chunks else DEFAULT_CHUNK_SIZE
            location = location_of(base, entry.digest)
            read_body(self._bodies, location, entry.size, sink, unit, stopped)


@dataclass(frozen=True, slots=True)
class OciOrigin:
    """One model in an OCI registry as the origin of a copy.

    Args:
        spec: the version that its tag stands for.
    """

    reader: OciReader
    spec: Spec
    found: Tagged

    @property
    def name(self) -> str:
        return self.reader.name

    def config(self) -> About:
        """What the config of the model says of it."""
        return self.reader.config(self.found)

    def manifest(self, spec: Spec) -> tuple[Manifest, str] | None:
        version = self.found.version
        return (version.manifest, self.found.base) if version else None

    def signatures(self, base: str, manifest: Manifest) -> bytes | None:
        return self.found.version.signatures if self.found.version else None

    def table(self, base: str, entry: FileEntry) -> ChunkTable | None:
        return self.reader.table(base, entry)

    def read(
        self, base: str, entry: FileEntry, sink: Sink, stopped: Callable[[], bool] = bool
    ) -> None:
        self.reader.read(base, entry, sink, stopped)

    def whereabouts(self, base: str, entry: FileEntry) -> str:
        """The blob, for messages."""
        return f"{base.rpartition('@')[0]}@sha256:{entry.digest}"
