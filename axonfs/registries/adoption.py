"""The copy of a model in an OCI registry that comes from no registry of files.

It becomes a version as `publish` would make it of the same files, and the same one each time.
Blocking; a few threads read the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from axonfs.errors import AxonError, naming
from axonfs.formats.manifest import ChunkRef, FileEntry
from axonfs.publish.metadata import Description
from axonfs.publish.publisher import described, digests, refuse_changes, render
from axonfs.publish.registry import Registry
from axonfs.registries.copy import Copied, Progress
from axonfs.registries.objects import bring
from axonfs.registries.oci_reader import OciOrigin
from axonfs.registries.transfer import Transfer


class Adoption:
    """The copy of `origin` into `target`."""

    def __init__(self, origin: OciOrigin, target: Registry, progress: Progress) -> None:
        self._origin = origin
        self._target = target
        self._spec = origin.spec
        self._progress = progress
        self._chunks: dict[str, ChunkRef | None] = {}  # by the digest of their object

    def run(self) -> Copied:
        """
        Raises:
            AxonError: a layer is an archive, the version is there with other files, or the bytes do
                not match.
        """
        files = self._files()
        if earlier := self._target.manifest(self._spec):
            refuse_changes(digests(earlier.files), digests(files))
            return Copied(self._spec, new=False, objects=0, bytes=0)
        self._target.check_spec(self._spec)
        objects = {entry.digest: entry for entry in files}
        lacking = [entry for entry in objects.values() if not self._has(entry)]
        total = sum(entry.size for entry in lacking)
        work = Transfer(total, partial(self._progress, self._spec))
        work.run([partial(self._bring, entry, work) for entry in lacking])
        new = self._enter([replace(entry, chunks=self._chunks[entry.digest]) for entry in files])
        return Copied(self._spec, new, len(lacking), total)

    def _files(self) -> list[FileEntry]:
        """The files of the layers.

        Raises:
            AxonError: one is an archive, or there are none.
            MalformedError: no version may have these files.
        """
        model = self._origin.found.model
        if model.archives:
            what = "the model has layers that are archives, which no registry of files has"
            hint = "mount the OCI registry, and axonfs publish the version's directory there"
            raise AxonError(what, source=self._origin.name, hint=hint)
        if not model.layers:
            raise AxonError("the model has no files", source=self._origin.name)
        found = {
            layer.path: FileEntry(
                layer.path, layer.blob.size, layer.blob.digest, executable=layer.executable
            )
            for layer in model.layers
        }
        files = [found[path] for path in sorted(found)]
        with naming(source=self._origin.name):
            render(self._spec, tuple(files), Description())  # refuses what no version may have
        return files

    def _has(self, entry: FileEntry) -> bool:
        """Whether the target has the object and a chunk table of it."""
        if not self._target.has_object(entry.digest, entry.size):
            return False
        self._chunks[entry.digest] = (
            self._target.kept_table(entry.digest, entry.size) if entry.size else None
        )
        return not entry.size or self._chunks[entry.digest] is not None

    def _bring(self, entry: FileEntry, work: Transfer) -> None:
        with naming(path=entry.path):
            table = bring(self._origin, self._origin.found.base, entry, None, self._target, work)
            self._chunks[entry.digest] = (
                self._target.settle_table(entry.digest, table) if entry.size else None
            )

    def _enter(self, files: Sequence[FileEntry]) -> bool:
        """Publish the version; return False if another publisher was faster with these files."""
        about = self._origin.config()
        given = {
            "description": about.description or None,
            "license": about.license or None,
            "framework": about.framework or None,
        }
        metadata = described(self._target, tuple(files), given)
        if about.format:
            metadata = replace(metadata, format=about.format)
        earlier = self._target.enter(render(self._spec, tuple(files), metadata, about.created))
        if earlier:
            refuse_changes(digests(earlier.files), digests(files))
        return earlier is None
