"""Copies of versions into an OCI registry.

First the files, then the version's own manifest, chunk tables and signatures as an artifact that
refers to the model, then the model's manifest under its tag. So a reader sees whole models only.
Blobs that the registry has are not sent again. Blocking; a few threads read and send blobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from axonfs.errors import (
    AxonError,
    ChangedError,
    MalformedError,
    UnavailableError,
    UnsupportedError,
    naming,
)
from axonfs.formats.chunktable import table_bytes
from axonfs.formats.manifest import FileEntry, Manifest
from axonfs.http_client import Calls
from axonfs.names import Spec, printable
from axonfs.oci import Reference
from axonfs.oci.config import About
from axonfs.oci.manifest import Descriptor, digest_of, is_alone, kind_of
from axonfs.oci.packing import PackedFile, packed, same_files
from axonfs.oci.referrers import (
    MANIFEST,
    NO_CONFIG,
    SIGNATURES,
    TABLE,
    render_artifact,
    tag_of,
    with_artifact,
)
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

CHECKS = 8  # blobs that are looked for at the same time
LISTINGS = 5  # attempts to have an index name an artifact
_REFUSED = frozenset({400, 415})  # answers by which registries say that they take no artifact
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
        PackedFile(entry.path, entry.size, entry.digest, entry.executable, manifest.created)
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
    layers = [FileEntry(one.path, one.blob.size, one.blob.digest) for one in found.model.layers]
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
    if load.packed:
        if changed := same_files(earlier.model, load.packed):
            what = f"the tag names other files ('{printable(changed)}' differs)"
            raise ChangedError(what, hint=_NEVER)
    elif load.raw != earlier.raw:
        raise ChangedError("the tag names another manifest", hint=_NEVER)
    ours, theirs = load.version, earlier.version
    if ours and theirs and ours.manifest.digest != theirs.manifest.digest:
        what = "this version is there with another manifest"
        raise ChangedError(what, hint=_NEVER)
    return replace(load, raw=earlier.raw, image=earlier.image)


@dataclass(frozen=True, slots=True)
class _Artifact:
    """An artifact to store.

    Args:
        subject: the digest of the manifest that it refers to.
        documents: its layers that are in memory, by digest; the others are chunk tables.
        replaced: the digests of artifacts that say less.
    """

    raw: bytes
    subject: str
    documents: dict[str, bytes] = field(default_factory=dict)
    replaced: frozenset[str] = frozenset()


def _artifact(load: Load, earlier: Tagged | None) -> _Artifact | None:
    """The artifact with a load's version, and what the registry knows of it; None if the registry
    has this very artifact, or if there is no version.

    Raises:
        ChangedError, MalformedError: the version has signatures of something else.
    """
    if load.version is None:
        return None
    manifest, before = load.version.manifest, earlier.version if earlier else None
    new = checked(load.version.signatures, manifest)
    signatures = merged(before.signatures if before else b"", new, manifest)
    yanked = load.version.yanked or bool(before and before.yanked)
    documents = {MANIFEST: manifest.raw, **({SIGNATURES: signatures} if signatures else {})}
    layers = [Descriptor(kind, digest_of(body), len(body)) for kind, body in documents.items()]
    tables = {table.digest: table for table in map(_table, manifest.files) if table}
    subject = Descriptor(kind_of(load.image), digest_of(load.image), len(load.image))
    raw = render_artifact(subject, [*layers, *tables.values()], yanked=yanked)
    if before and digest_of(raw) in before.artifacts:
        return None
    bodies = {digest_of(body): body for body in (NO_CONFIG, *documents.values())}
    return _Artifact(raw, subject.digest, bodies, before.artifacts if before else frozenset())


def _table(entry: FileEntry) -> Descriptor | None:
    """The chunk table of a file as a layer."""
    if entry.chunks is None or not entry.size:
        return None
    return Descriptor(TABLE, entry.chunks.digest, table_bytes(entry.size, entry.chunks.size))


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

    def run(self, artifact: _Artifact | None, tag: str, *, new: bool) -> Copied:
        """Send what the registry lacks; `tag` last, if it is new."""
        entries = {entry.digest: entry for entry in self._load.files}
        lacking = self._lacking(entries.values()) if new else []
        total = sum(entry.size for entry in lacking)
        work = Transfer(total, partial(self._progress, self._load.spec))
        jobs = [partial(self._bring, entry, work) for entry in lacking]
        jobs += [partial(self._put_table, entry) for entry in entries.values() if artifact]
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
        layer = _table(entry)
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

    def _put_document(self, digest: str, body: bytes) -> None:
        if not self._to.has_blob(digest, len(body)):
            self._to.put_bytes(digest, body)

    def _refer(self, artifact: _Artifact) -> None:
        """Store the artifact, and have what lists the model's referrers name it."""
        for digest, body in artifact.documents.items():
            self._put_document(digest, body)
        try:
            if self._to.put_manifest(f"sha256:{digest_of(artifact.raw)}", artifact.raw):
                return
        except UnavailableError as exc:
            if exc.status in _REFUSED:
                raise UnsupportedError(exc.what, source=exc.source, hint=_NO_ARTIFACTS) from exc
            raise
        self._list(tag_of(artifact.subject), artifact)

    def _list(self, tag: str, artifact: _Artifact) -> None:
        """Have the index under `tag` name the artifact.

        Another client may put an index in its place that it made from the one of before. So it is
        read again.
        """
        for _ in range(LISTINGS):
            index = self._to.manifest(tag)
            try:
                made = with_artifact(index, artifact.raw, artifact.replaced)
            except MalformedError as exc:
                exc.hint = f"something else has the tag {tag} there"
                raise
            if made == index:
                return
            self._to.put_manifest(tag, made)
        what = f"the index under the tag {tag} does not keep what is added to it"
        raise AxonError(what, hint="run the command again once no other client writes there")

    def _enter(self, tag: str) -> None:
        load = self._load
        if load.config:
            self._put_document(digest_of(load.config), load.config)
        if load.image != load.raw:
            self._to.put_manifest(f"sha256:{digest_of(load.image)}", load.image)
        # OCI has no conditional writes, and the files may have taken hours.
        if self._to.manifest(tag) not in (None, load.raw):
            raise ChangedError("somebody else has made the tag meanwhile", hint=_NEVER)
        self._to.put_manifest(tag, load.raw)
