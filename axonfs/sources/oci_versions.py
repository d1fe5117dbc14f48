"""The versions of a registry of files that are in an OCI registry, for copies between both.

    NAMESPACE/NAME@VERSION      PREFIX/NAMESPACE/NAME:VERSION

Beside oci.py, where a version is a digest. A model that was copied from a registry of files has an
artifact with the version's own manifest; see axonfs/oci/referrers.py. Trio only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import trio

from axonfs.errors import (
    AccessDeniedError,
    ChangedError,
    NotFoundError,
    UnavailableError,
    UsageError,
    VanishedError,
    naming,
)
from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.listing import Versions
from axonfs.formats.manifest import MAX_MANIFEST_BYTES, FileEntry, Manifest, parse_manifest
from axonfs.http_client.documents import Documents
from axonfs.names import LATEST, Spec, printable, spec_of
from axonfs.oci import Place, Reference
from axonfs.oci.config import About, about
from axonfs.oci.manifest import Model, digest_of
from axonfs.oci.place import version_of
from axonfs.oci.referrers import Artifact, Listed, tag_of
from axonfs.signatures import MAX_SIGNATURES, limit_of, parse_signatures
from axonfs.sources.oci_documents import OciDocuments
from axonfs.sources.oci_lists import OciLists

log = logging.getLogger(__name__)

SHOWN = 5  # names in one message


@dataclass(frozen=True, slots=True)
class Version:
    """The version of a registry of files that a model was copied from.

    Args:
        signatures: the file of its signatures; may be empty.
        artifacts: the digests of the artifacts that say so.
    """

    manifest: Manifest
    signatures: bytes = b""
    yanked: bool = False
    artifacts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Tagged:
    """What a tag names.

    Args:
        raw: a manifest, or an index of one.
        image: the manifest of the model.
        base: `oci://host/repository@sha256:digest/`.
        model: names the chunk tables that the registry keeps for it.
        version: None if the model was not copied from a registry of files.
        tables: the digests of these tables, and of those that the version names.
    """

    reference: Reference
    raw: bytes
    image: bytes
    model: Model
    base: str
    version: Version | None
    tables: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """The sha256 of the model's manifest."""
        return digest_of(self.image)


class OciVersions:
    """Those below the prefix of `place`."""

    def __init__(self, place: Place, documents: Documents) -> None:
        self.name = place.url
        self._place = place
        self._documents = OciDocuments(place.host, documents)
        self._lists = OciLists(place.host, documents, None)

    def __repr__(self) -> str:
        return f"<OciVersions {self.name}>"

    async def specs(self) -> list[Spec]:
        """A version for each tag of each repository that the registry lists.

        Raises:
            NotFoundError: it lists none below the prefix.
        """
        found, other = list[Spec](), list[str]()
        for name in await self._repositories():
            own = name.removeprefix(self._place.prefix)
            tags = _versions(await self._tags(name) or ())
            specs = [spec for tag in tags if (spec := spec_of((*own.split("/"), tag)))]
            found += specs
            other += [name] if tags and not specs else []
        if other:
            shown = ", ".join(other[:SHOWN]) + ", …" * (len(other) > SHOWN)
            log.warning("left out: %s (not NAMESPACE/NAME below %s)", shown, self.name)
        if not found:
            what = "the registry lists no repository NAMESPACE/NAME below this prefix"
            raise NotFoundError(what, source=self.name, hint=_NAME_THEM)
        return found

    async def _repositories(self) -> list[str]:
        try:
            names = await self._lists.names("_catalog", "repositories")
        except (AccessDeniedError, NotFoundError, UnavailableError) as exc:
            if isinstance(exc, UnavailableError) and exc.status is None:
                raise
            what = f"the registry does not list its repositories: {exc.what}"
            raise NotFoundError(what, source=self.name, hint=_NAME_THEM) from exc
        return [name for name in names if name.startswith(self._place.prefix)]

    async def versions(self, model: str) -> Versions | None:
        """The tags of a model; None if the repository does not exist."""
        with naming(source=f"{self.name}/{model}"):
            tags = await self._tags(f"{self._place.prefix}{model}")
            if not tags:
                return None
        return Versions.of(version for version in _versions(tags) if version != LATEST)

    async def _tags(self, repository: str) -> list[str] | None:
        try:
            return await self._lists.names(f"{repository}/tags/list", "tags")
        except NotFoundError:
            return None

    async def tagged(self, spec: Spec) -> Tagged | None:
        """What the tag of a version names now; None if it does not exist.

        Raises:
            UsageError: OCI does not allow such a name.
            ChangedError: the version's manifest does not fit the model.
            MalformedError: the tag names no model, or a wrong version of it.
        """
        reference = self._place.reference(spec)
        with naming(source=str(reference)):
            raw = await self._documents.named(reference.repository, reference.tag)
            if raw is None:
                return None
            image, model = await self._documents.model(reference.repository, raw)
            digest = digest_of(image)
            version, tables = await self._version(reference, digest, model)
        base = f"oci://{self._place.host}/{reference.repository}@sha256:{digest}/"
        known = model.with_tables(tables)
        return Tagged(reference, raw, image, known, base, version, tables)

    async def _version(
        self, reference: Reference, digest: str, model: Model
    ) -> tuple[Version | None, frozenset[str]]:
        """The version that the artifacts of a model agree on, and the digests of their tables."""
        version, tables = None, frozenset[str]()
        for item in await self._documents.artifacts(reference.repository, digest):
            artifact = await self._artifact(reference.repository, item, digest)
            if artifact is None:
                continue
            tables |= artifact.tables
            if artifact.manifest is None:
                continue
            found = await self._in_artifact(reference.repository, artifact, item.digest)
            if self._is_of(found.manifest.spec, reference):
                _check_files(found.manifest, model)
                version = _joined(version, found) if version else found
        return version, tables

    async def _artifact(self, repository: str, item: Listed, subject: str) -> Artifact | None:
        """One that the registry lists; None if it is gone and kept chunk tables alone."""
        try:
            return await self._documents.artifact(repository, item.digest, subject)
        except NotFoundError as exc:
            if not item.has_version:
                return None
            what = "the registry no longer has the artifact with the version's manifest"
            hint = f"remove the tag {tag_of(subject)} there, and copy the version from elsewhere"
            raise VanishedError(what, hint=hint) from exc

    async def _in_artifact(self, repository: str, artifact: Artifact, digest: str) -> Version:
        assert artifact.manifest is not None
        body = await self._documents.blob(repository, artifact.manifest, MAX_MANIFEST_BYTES)
        manifest = await trio.to_thread.run_sync(parse_manifest, body)
        signatures = b""
        if blob := artifact.signatures:
            signatures = await self._documents.blob(repository, blob, limit_of(manifest))
        return Version(manifest, signatures, artifact.yanked, frozenset({digest}))

    def _is_of(self, spec: Spec, reference: Reference) -> bool:
        """Whether a version has this tag; another tag of the same model may have another one."""
        try:
            return self._place.reference(spec) == reference
        except UsageError:
            return False

    async def config(self, found: Tagged) -> About:
        """What the config of a model says of it."""
        raw = await self._documents.config(found.reference.repository, found.model)
        return about(raw, found.model.annotations)

    async def table(self, base: str, entry: FileEntry) -> ChunkTable | None:
        """The chunk table of a file of a version; None if the file names none."""
        return await self._documents.table(base, entry)


_NAME_THEM = "check the URL, or name the versions, as NAMESPACE/NAME@VERSION"


def _versions(tags: Iterable[str]) -> list[str]:
    """Tags as versions. `latest` is no version, so it counts only where it is the only tag."""
    found = sorted(map(version_of, tags))
    return [version for version in found if version != LATEST] or found


def _check_files(manifest: Manifest, model: Model) -> None:
    """
    Raises:
        ChangedError: the manifest names other files than the model's layers.
    """
    theirs = {layer.path: (layer.blob.digest, layer.blob.size) for layer in model.layers}
    ours: dict[str, object] = {entry.path: (entry.digest, entry.size) for entry in manifest.files}
    changed = [path for path in theirs.keys() | ours.keys() if theirs.get(path) != ours.get(path)]
    if changed or model.archives:
        what = "the version's manifest does not name the files of the model"
        shown = f" ('{printable(min(changed))}' differs)" if changed else ""
        hint = "remove the artifact that refers to the model, or the model, and copy it anew"
        raise ChangedError(what + shown, spec=str(manifest.spec), hint=hint)


def _joined(one: Version, other: Version) -> Version:
    """
    Raises:
        ChangedError: they have different manifests.
    """
    if one.manifest.digest != other.manifest.digest:
        what = "several artifacts with different manifests are of this version"
        raise ChangedError(what, hint="remove the wrong one from the OCI registry")
    lines = [found.line for file in (one, other) for found in parse_signatures(file.signatures)]
    kept = [*dict.fromkeys(lines)][-MAX_SIGNATURES:]  # each artifact may have as many
    signatures = b"".join(line + b"\n" for line in kept)
    artifacts = one.artifacts | other.artifacts
    return Version(one.manifest, signatures, one.yanked or other.yanked, artifacts)
