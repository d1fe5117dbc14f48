"""What a model keeps beside its files: an artifact that refers to the model.

Its layers are chunk tables and, of a model that was copied from a registry of files, the version's
manifest and signatures. Its `subject` is the model's OCI manifest. A registry lists what refers to
a manifest; where it does not, an index under a tag that is made from the manifest's digest does.
Pure. Source: the OCI distribution specification 1.1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from axonfs.errors import AxonError, MalformedError
from axonfs.formats.chunktable import table_bytes
from axonfs.formats.manifest import ChunkRef
from axonfs.names import oci_version
from axonfs.oci.manifest import (
    IMAGE,
    INDEX,
    MAX_MANIFEST_BYTES,
    Descriptor,
    annotations_of,
    descriptor,
    digest_of,
    document,
)
from axonfs.oci.packing import rendered

# The types of artifacts: with a version, and with chunk tables alone.
VERSION = "application/vnd.axonfs.version.v1"
TABLES = "application/vnd.axonfs.chunktables.v1"
MANIFEST = "application/vnd.axonfs.manifest.v1+yaml"
TABLE = "application/vnd.axonfs.chunktable.v1"
SIGNATURES = "application/vnd.axonfs.signatures.v1+jsonl"
YANKED = "org.axonfs.yanked"
MAX_ARTIFACTS = 64  # of one model that are read
NO_CONFIG = b"{}"
_EMPTY = "application/vnd.oci.empty.v1+json"


@dataclass(frozen=True, slots=True)
class Artifact:
    """The parts of an artifact that are read.

    Args:
        manifest: of the version; None if the artifact keeps chunk tables alone.
        signatures: None if there are none.
        tables: the digests of the chunk tables.
        yanked: whether the version is yanked.
    """

    manifest: Descriptor | None
    signatures: Descriptor | None
    tables: frozenset[str]
    yanked: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """An artifact that a registry lists; `has_version` tells one with a version."""

    digest: str
    has_version: bool


def table_of(size: int, chunks: ChunkRef | None) -> Descriptor | None:
    """The chunk table of a file of `size` bytes as a layer; None if it has none."""
    if chunks is None or not size:
        return None
    return Descriptor(TABLE, chunks.digest, table_bytes(size, chunks.size))


def tag_of(subject: str) -> str:
    """The tag of the index of what refers to the manifest with this digest."""
    return oci_version(subject)


def render_artifact(subject: Descriptor, layers: Iterable[Descriptor], *, yanked: bool) -> bytes:
    """The manifest of an artifact; of a version, if a manifest is among its layers.

    Raises:
        AxonError: it would be larger than registries accept.
    """
    layers = list(layers)
    root = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "artifactType": VERSION if any(one.media_type == MANIFEST for one in layers) else TABLES,
        "config": rendered(_EMPTY, digest_of(NO_CONFIG), len(NO_CONFIG)),
        "layers": [rendered(one.media_type, one.digest, one.size) for one in layers],
        "subject": rendered(subject.media_type, subject.digest, subject.size),
        **({"annotations": {YANKED: "true"}} if yanked else {}),
    }
    raw = json.dumps(root, separators=(",", ":")).encode()
    if len(raw) > MAX_MANIFEST_BYTES:
        what = "the list of its chunk tables is larger than OCI registries accept (4 MiB)"
        raise AxonError(what, hint="publish the files in several models")
    return raw


def parse_artifact(raw: bytes, subject: str) -> Artifact:
    """
    Args:
        subject: the digest of the manifest that it has to refer to.

    Raises:
        MalformedError: it is no such artifact.
    """
    root = document(raw)
    layers, notes = root.get("layers"), annotations_of(root.get("annotations"))
    if not _is_own(root) or not isinstance(layers, list):
        raise MalformedError("it is not an artifact with a version or chunk tables")
    if descriptor(root.get("subject"), "the subject").digest != subject:
        raise MalformedError("the artifact refers to another model")
    found = [descriptor(item, f"layer {number}") for number, item in enumerate(layers, 1)]
    manifests = [one for one in found if one.media_type == MANIFEST]
    signatures = [one for one in found if one.media_type == SIGNATURES]
    tables = frozenset(one.digest for one in found if one.media_type == TABLE)
    if len(manifests) != int(_has_version(root)) or len(signatures) > len(manifests):
        raise MalformedError("the artifact does not have what is in one of its type")
    yanked = notes.get(YANKED) == "true"
    return Artifact(next(iter(manifests), None), next(iter(signatures), None), tables, yanked)


def listed(raw: bytes) -> list[Listed]:
    """The artifacts in an index of what refers to a model.

    Raises:
        MalformedError: it is no index.
    """
    own = filter(_is_own, _items(document(raw)))
    what = "a manifest of the index"
    return [Listed(descriptor(item, what).digest, _has_version(item)) for item in own]


def with_artifact(index: bytes | None, raw: bytes, replaced: Iterable[str]) -> bytes:
    """An index of what refers to a model, with this artifact; the same bytes if it has that.

    Args:
        index: the index of before, if there is one. All else in it stays.
        replaced: digests of artifacts that make way.

    Raises:
        MalformedError: `index` is none.
    """
    root = document(index) if index else {"manifests": []}
    items, own = _items(root), digest_of(raw)
    gone = {f"sha256:{digest}" for digest in replaced if digest != own}
    kept = [item for item in items if item.get("digest") not in gone]
    if not any(_is_own(item) and item.get("digest") == f"sha256:{own}" for item in kept):
        kind = document(raw).get("artifactType")
        kept.append({**rendered(IMAGE, own, len(raw)), "artifactType": kind})
    if index and kept == items:
        return index
    root |= {"schemaVersion": 2, "mediaType": INDEX, "manifests": kept}
    return json.dumps(root, separators=(",", ":")).encode()


def _is_own(item: Mapping[str, Any]) -> bool:
    return item.get("artifactType") in (VERSION, TABLES)


def _has_version(item: Mapping[str, Any]) -> bool:
    return item.get("artifactType") == VERSION


def _items(root: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The manifests that an index of what refers to a model names. Some registries write an empty
    list as null."""
    items = root.get("manifests", "")
    if items is None:
        return []
    if not isinstance(items, list):
        raise MalformedError("the list of what refers to the model is not an index")
    return [item for item in items if isinstance(item, dict)]
