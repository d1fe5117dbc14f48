"""Copies of versions into an OCI registry.

First the files, then the version's own manifest, chunk tables and signatures as an artifact that
refers to the model, then the model's manifest under its tag. So a reader sees whole models only.
Blobs that the registry has are not sent again. Blocking; a few threads read and send blobs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from axonfs.errors import ChangedError, UnsupportedError, naming
from axonfs.formats.manifest import FileEntry, Manifest
from axonfs.http_client import Calls
from axonfs.names import Spec, printable
from axonfs.oci import Reference
from axonfs.oci.artifacts import NewArtifact, new_artifact, put_artifact, put_document
from axonfs.oci.config import About
from axonfs.oci.manifest import Descriptor, digest_of, is_alone
from axonfs.oci.packing import PackedFile, packed, same_files
from axonfs.oci.referrers import MANIFEST, SIGNATURES, table_of
from axonfs.oci.tokens import Host
from axonfs.oci.uploads import Repository
from axonfs.publish.signatures import checked
from axonfs.publish.together import pool
from axonfs.registries.copy import Copied, Progress
from axonfs.registries.objects import check_named, spool, verify, write_spool
from axonfs.registries.oci_reader import OciOrigin, OciReader
from axonfs.registries.reader import Origin
from axonfs.registries.transfer import Transfer
from axonfs.signatures import merged
from axonfs.sources.oci_versions import Tagged, Version

log = logging.getLogger(__name__)

CHECKS = 8  # blobs that are looked for at the same time
_NO_ARTIFACTS = (
    "it seems to take no artifacts, so the version's manifest has no place there;"
    " axonfs publish DIR --to oci://HOST/REPOSITORY:TAG stores the files alone"
)
_NEVER = "a published version never changes; remove the tag there first if it is wrong"


@dataclass(frozen=True, slots=True)
class Load:
    """What is copied under one tag.

    Args:
        raw: what the tag is to name: a manifest, or an index of one.
        image: the manifest of the model.
        base: the URL that `origin` has the files below.
        files: the blobs that `origin` has.
        config: the model's config, if `origin` does not have it.
        packed: the files of the model, if its manifest was made for this copy.
    """

    origin: Origin
    spec: Spec
    raw: bytes
    image: bytes
    base: str
    files: tuple[FileEntry, ...]
    version: Version | None
    config: bytes = b""
    packed: Sequence[PackedFile] = ()


def load_of(origin: Origin, manifest: Manifest, base: str, *, yanked: bool) -> Load:
    """The model as which a version of a registry of files is copied.

    Raises:
        UnverifiedError: a file has no sha256.
        ChangedError, MalformedError: its signatures are of something else.
    """
    for entry in manifest.files:
        with naming(path=entry.path):
            check_named(entry)
    version = Version(manifest, origin.signatures(base, manifest) or b"", yanked)
    files = _files(manifest)
    _, config, raw = packed(manifest.spec.name.rpartition("/")[2], _about(manifest), files)
    return Load(origin, manifest.spec, raw, raw, base, manifest.files, version, config, files)


def _files(manifest: Manifest) -> list[PackedFile]:
    return [
        PackedFile(
            entry.path, entry.size, entry.digest, entry.executable, manifest.created, entry.chunks
        )
        for entry in manifest.files
    ]


def _about(manifest: Manifest) -> About:
    return About(
        manifest.description,
        manifest.license,
        manifest.framework,
        manifest.format,
        manifest.created,
    )


def load_from(origin: OciOrigin) -> Load:
    """The model in another OCI registry; its manifest stays as it is. Of an index with attestations
    only the model is copied."""
    found, version = origin.found, origin.found.version
    raw = found.raw if is_alone(found.raw) else found.image
    layers = [
        FileEntry(one.path, one.blob.size, one.blob.digest, one.chunks)
        for one in found.model.layers
    ]
    config = found.model.config
    entries = [FileEntry("the config", config.size, config.digest), *layers]
    if version:  # its files are those of the layers, with chunk tables
        entries += version.manifest.files
    spec = version.manifest.spec if version else origin.spec
    return Load(origin, spec, raw, found.image, found.base, tuple(entries), version)


class OciTarget:
    """The registry of `reader`."""

    def __init__(self, reader: OciReader, host: Host, calls: Calls) -> None:
        self._reader = reader
        self._host = host
        self._calls = calls

    @property
    def name(self) -> str:
        return self._reader.name

    def put(self, load: Load, progress: Progress) -> Copied:
        """Copy one version.

        Raises:
            ChangedError: the tag names something else.
            AxonError: a registry refuses, or the bytes do not match.
        """
        reference = self._reader.place.reference(load.spec)
        to = Repository(self._host, reference.repository, self._calls)
        with naming(source=str(reference)):
            # Who may only read may not be told that a repository does not exist.
            there = to.manifest(reference.tag) is not None
            earlier = self._reader.tagged(load.spec) if there else None
            if earlier:
                load = _compared(load, earlier)
            artifact = _artifact(load, earlier)
            put = _Put(load, to, progress, _beside(load.origin, reference))
            return put.run(artifact, reference.tag, new=earlier is None)


def _beside(origin: Origin, target: Reference) -> str:
    """The repository that is copied, if it is in the registry of `target`; else empty."""
    if not isinstance(origin, OciOrigin):
        return ""
    found = origin.found.reference
    return found.repository if found.place.host == target.place.host else ""


def _compared(load: Load, earlier: Tagged) -> Load:
    """What is left to copy under a tag that exists.

    Raises:
        ChangedError: it names something else.
    """
    ours, theirs = load.version, earlier.version
    if load.packed:
        if changed := same_files(earlier.model, load.packed):
            what = f"the tag names other files ('{printable(changed)}' differs)"
            raise ChangedError(what, hint=_NEVER)
    elif load.raw != earlier.raw and not (ours and theirs):  # another axonfs may have packed it
        raise ChangedError("the tag names another manifest", hint=_NEVER)
    if ours and theirs and ours.manifest.digest != theirs.manifest.digest:
        what = "this version is there with another manifest"
        raise ChangedError(what, hint=_NEVER)
    return replace(load, raw=earlier.raw, image=earlier.image)


def _artifact(load: Load, earlier: Tagged | None) -> NewArtifact | None:
    """The artifact with a load's version and chunk tables, and what the registry knows of it; None
    if the registry has this very artifact, or if there is nothing to keep.

    Raises:
        ChangedError, MalformedError: the version has signatures of something else.
    """
    tables = [table for entry in load.files if (table := table_of(entry.size, entry.chunks))]
    if load.version is None:
        kept = earlier.tables if earlier else frozenset()
        lacking = any(table.digest not in kept for table in tables)
        return new_artifact(load.image, {}, tables) if lacking else None
    manifest, before = load.version.manifest, earlier.version if earlier else None
    new = checked(load.version.signatures, manifest)
    signatures = merged(before.signatures if before else b"", new, manifest)
    yanked = load.version.yanked or bool(before and before.yanked)
    documents = {MANIFEST: manifest.raw, **({SIGNATURES: signatures} if signatures else {})}
    replaced = before.artifacts if before else frozenset()
    made = new_artifact(load.image, documents, tables, yanked=yanked, replaced=replaced)
    return None if before and made.digest in before.artifacts else made


class _Put:
    """The copy of one load.

    Args:
        beside: another repository of the registry, which has the blobs.
    """

    def __init__(self, load: Load, to: Repository, progress: Progress, beside: str) -> None:
        self._load = load
        self._to = to
        self._progress = progress
        self._beside = beside

    def run(self, artifact: NewArtifact | None, tag: str, *, new: bool) -> Copied:
        """Send what the registry lacks; `tag` last, if it is new."""
        entries = {entry.digest: entry for entry in self._load.files}
        lacking = self._lacking(entries.values()) if new else []
        total = sum(entry.size for entry in lacking)
        work = Transfer(total, partial(self._progress, self._load.spec))
        jobs = [partial(self._bring, entry, work) for entry in lacking]
        if artifact:
            tables = {entry.chunks: entry for entry in self._load.files}
            jobs += [partial(self._put_table, entry) for entry in tables.values()]
        work.run(jobs)
        if artifact:
            self._refer(artifact)
        if new:
            self._enter(tag)
        return Copied(self._load.spec, new, len(lacking), total)

    def _lacking(self, entries: Iterable[FileEntry]) -> list[FileEntry]:
        asked = list(entries)
        with pool(CHECKS, "look") as threads:
            found = threads.map(lambda entry: self._to.has_blob(entry.digest, entry.size), asked)
            return [entry for entry, there in zip(asked, found, strict=True) if not there]

    def _bring(self, entry: FileEntry, work: Transfer) -> None:
        """Read a file, compare it, and send it, unless the registry takes its own."""
        load = self._load
        if self._mounted(entry.digest):
            work.moved(entry.size)
            return
        with naming(path=entry.path), spool() as fd:
            table = load.origin.table(load.base, entry) if entry.size else None
            verify(load.origin, load.base, entry, table, work, lambda piece: write_spool(fd, piece))
            self._to.put_blob(entry.digest, entry.size, fd, lambda count: work.moved(0))

    def _put_table(self, entry: FileEntry) -> None:
        layer = table_of(entry.size, entry.chunks)
        if layer and not self._has(layer):
            table = self._load.origin.table(self._load.base, entry)
            assert table is not None  # the manifest names one
            self._to.put_bytes(layer.digest, table.encode())

    def _has(self, table: Descriptor) -> bool:
        return self._to.has_blob(table.digest, table.size) or self._mounted(table.digest)

    def _mounted(self, digest: str) -> bool:
        """Whether the registry took a blob from the other repository. Where it does not take one,
        it is not asked for the next."""
        beside = self._beside
        if taken := bool(beside) and self._to.mount(digest, beside):
            return taken
        self._beside = ""
        return False

    def _refer(self, artifact: NewArtifact) -> None:
        try:
            put_artifact(self._to, artifact)
        except UnsupportedError as exc:
            if self._load.version:
                exc.hint = _NO_ARTIFACTS
                raise
            log.info("the chunk tables are not kept: %s", exc)

    def _enter(self, tag: str) -> None:
        load = self._load
        if load.config:
            put_document(self._to, digest_of(load.config), load.config)
        if load.image != load.raw:
            self._to.put_manifest(f"sha256:{digest_of(load.image)}", load.image)
        # OCI has no conditional writes, and the files may have taken hours.
        if self._to.manifest(tag) not in (None, load.raw):
            raise ChangedError("somebody else has made the tag meanwhile", hint=_NEVER)
        self._to.put_manifest(tag, load.raw)
