"""OCI manifests of models: which files they name, and where their bytes are.

Pure. These layouts are read, in any mixture: the CNCF ModelPack specification
(application/vnd.cncf.model.*), KitOps (application/vnd.kitops.modelkit.*), plain ORAS files, which
have a title, and what Docker Model Runner and Ollama write. Everything comes from outside and is
checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from axonfs.errors import MalformedError
from axonfs.formats.manifest import (
    MAX_CHUNKS,
    MAX_FILES,
    MAX_SIZE,
    ChunkRef,
    check_chunk_size,
    chunk_count,
)
from axonfs.names import check_path, plain, printable
from axonfs.oci.unnamed import names_of

MAX_MANIFEST_BYTES = 4 << 20  # as much as registries accept
MAX_CONFIG_BYTES = 1 << 20
IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
MODELPACK = "application/vnd.cncf.model.manifest.v1+json"
MODELPACK_CONFIG = "application/vnd.cncf.model.config.v1+json"
FILEPATH = "org.cncf.model.filepath"
METADATA = "org.cncf.model.file.metadata+json"
TITLE = "org.opencontainers.image.title"
CREATED = "org.opencontainers.image.created"
# Of a layer: its chunk size in bytes, and the sha256 of its chunk table.
CHUNK_SIZE = "org.axonfs.chunks.size"
CHUNK_TABLE = "org.axonfs.chunks.digest"
_UNPACK = "io.deis.oras.content.unpack"
_REFERENCE = "vnd.docker.reference.type"
_LISTS = (INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
_CONTAINERS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
_MODELS = (
    "application/vnd.cncf.model.",
    "application/vnd.kitops.modelkit.",
    "application/vnd.docker.ai.",
)
# The type of a directory that ORAS packs. Its Python library marks one by nothing else.
_DIRECTORY = "application/vnd.oci.image.layer.v1.tar+gzip"
_GZIPPED = (".gz", ".tgz")
# The ends of media types of layers, and how the bytes of such a layer are packed.
_PACKINGS = {
    ".raw": "raw",
    ".tar": "tar",
    ".tar+gzip": "tar+gzip",
    ".tar.gzip": "tar+gzip",
    ".tar+gz": "tar+gzip",
    ".tar.gz": "tar+gzip",
    ".tar+zstd": "tar+zstd",
    ".tar.zstd": "tar+zstd",
}
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob: `digest` is its sha256 in hex."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a model.

    Args:
        packing: `raw`: its bytes are those of the file at `path`; `tar` or `tar+gzip`: an archive,
            whose files lie below the directory of the version.
        executable: whether the owner may execute the file.
        chunks: of a raw layer, what it says of a chunk table.
    """

    blob: Descriptor
    path: str
    packing: str
    executable: bool = False
    chunks: ChunkRef | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model's manifest."""

    config: Descriptor
    layers: tuple[Layer, ...]
    annotations: Mapping[str, str]

    @property
    def has_tables(self) -> bool:
        """Whether a layer names a chunk table."""
        return any(layer.chunks for layer in self.layers)

    def with_tables(self, kept: Container[str]) -> Model:
        """The model whose layers name no chunk tables but those with the digests `kept`."""
        layers = tuple(
            layer if layer.chunks and layer.chunks.digest in kept else replace(layer, chunks=None)
            for layer in self.layers
        )
        return replace(self, layers=layers)

    @property
    def archives(self) -> int:
        """The number of layers that are archives."""
        return sum(layer.packing != "raw" for layer in self.layers)


def digest_of(raw: bytes) -> str:
    """The sha256 that names a manifest."""
    return hashlib.sha256(raw).hexdigest()


def parse(raw: bytes) -> Model | str:
    """The model in a manifest, or the digest of the one manifest that an index has.

    Raises:
        MalformedError: it is no model, or breaks a rule.
    """
    root = document(raw)
    kind = root.get("mediaType")
    if kind in _LISTS or ("manifests" in root and "layers" not in root):
        return _only(root)
    layers = root.get("layers")
    if not isinstance(layers, list):
        raise MalformedError(f"it is no manifest of a model: its media type is {_shown(kind)}")
    if len(layers) > MAX_FILES:
        raise MalformedError(f"the manifest has {len(layers):,} layers, more than {MAX_FILES:,}")
    config = descriptor(root.get("config"), "the config")
    found = _layers(layers, config)
    _refuse_repeated(found)
    return Model(config, found, annotations_of(root.get("annotations")))


def kind_of(raw: bytes) -> str:
    """The media type of a manifest or an index."""
    root = document(raw)
    kind = root.get("mediaType")
    return kind if isinstance(kind, str) else INDEX if "manifests" in root else IMAGE


def is_alone(raw: bytes) -> bool:
    """Whether it is no index that names other manifests beside the model's."""
    items = document(raw).get("manifests")
    return not isinstance(items, list) or len(items) < 2


def _layers(items: Sequence[object], config: Descriptor) -> tuple[Layer, ...]:
    blobs = [descriptor(item, f"layer {number}") for number, item in enumerate(items, 1)]
    paths = [blob.annotations.get(FILEPATH) or blob.annotations.get(TITLE, "") for blob in blobs]
    unnamed = ["" if path else blob.media_type for blob, path in zip(blobs, paths, strict=True)]
    usual = names_of(unnamed)
    return tuple(
        _layer(number, blob, path or name, config)
        for number, (blob, path, name) in enumerate(zip(blobs, paths, usual, strict=True), 1)
    )


def _refuse_repeated(layers: Iterable[Layer]) -> None:
    blobs: dict[str, str] = {}
    for layer in layers:
        if layer.packing == "raw" and blobs.setdefault(layer.path, layer.blob.digest) != (
            layer.blob.digest
        ):
            raise MalformedError(f"two layers have the path '{printable(layer.path)}'")


def document(raw: bytes) -> dict[str, Any]:
    """The JSON object of a manifest or an index."""
    try:
        root = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        page = raw.lstrip()[:1] == b"<"
        what = "the registry answered with a web page" if page else "the manifest is not JSON"
        raise MalformedError(what, hint="check the registry's URL") from exc
    if not isinstance(root, dict):
        raise MalformedError("the manifest is not a JSON object")
    if root.get("schemaVersion") == 1:
        raise MalformedError("it is a manifest of Docker's schema 1, which has no sizes")
    return root


def _only(root: Mapping[str, Any]) -> str:
    """The digest of the only manifest of an index; attestations do not count."""
    items = root.get("manifests")
    listed = items if isinstance(items, list) else []
    found = [
        descriptor(item, "a manifest of the index")
        for item in listed
        if isinstance(item, dict) and _REFERENCE not in annotations_of(item.get("annotations"))
    ]
    if len(found) == 1:
        return found[0].digest
    what = f"it is an index of {len(found)} manifests, such as one per platform, and no model"
    names = ", ".join(f"@sha256:{item.digest}" for item in found[:3])
    raise MalformedError(what, hint=f"name one of them: {names}" if names else None)


def _layer(number: int, blob: Descriptor, named: str, config: Descriptor) -> Layer:
    packing = _packing(blob)
    if packing == "raw" and not named:
        if config.media_type in _CONTAINERS:
            raise MalformedError("it is a container image and no model")
        what = f"layer {number} of media type {_shown(blob.media_type)} names no file"
        raise MalformedError(what, hint="models have layers with a file path or a title")
    path = named.removeprefix("./").rstrip("/")
    if packing != "raw" and path in ("", "."):
        return Layer(blob, "", packing)
    chunks = chunks_of(blob) if packing == "raw" else None
    return Layer(blob, check_path(path), packing, _executable(blob), chunks)


def _packing(blob: Descriptor) -> str:
    """How the bytes of a layer are packed."""
    if blob.media_type.startswith(_MODELS):
        for end, packing in _PACKINGS.items():
            if blob.media_type.endswith(end):
                return packing
    if blob.annotations.get(_UNPACK) == "true":
        return "tar+gzip"
    title = blob.annotations.get(TITLE, "")
    if blob.media_type == _DIRECTORY and title and not title.endswith(_GZIPPED):
        return "tar+gzip"
    return "raw"


def _executable(blob: Descriptor) -> bool:
    """Whether the layer's file metadata has the bit for the owner."""
    try:
        mode = json.loads(blob.annotations.get(METADATA, "null"))["mode"]
        return isinstance(mode, int) and bool(mode & 0o100)
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


def chunks_of(blob: Descriptor) -> ChunkRef | None:
    """What a layer says of its chunk table; None if it says nothing that can be used."""
    size, digest = (blob.annotations.get(key, "") for key in (CHUNK_SIZE, CHUNK_TABLE))
    match = _DIGEST.fullmatch(digest)
    if match is None or not blob.size or not re.fullmatch("[0-9]{1,9}", size):
        return None
    found = ChunkRef(int(size), match.group(1))
    with contextlib.suppress(MalformedError):
        check_chunk_size(found.size)
        return found if chunk_count(blob.size, found.size) <= MAX_CHUNKS else None
    return None


def descriptor(item: object, what: str) -> Descriptor:
    """The blob or manifest that an item names; `what` is its name in a fault."""
    if not isinstance(item, dict):
        raise MalformedError(f"{what} is not a descriptor")
    size, text = item.get("size"), str(item.get("digest"))
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_SIZE:
        raise MalformedError(f"{what} has no valid size")
    match = _DIGEST.fullmatch(text)
    if match is None:
        raise MalformedError(f"{what} has '{printable(text, 80)}', which is no sha256 digest")
    kind = item.get("mediaType")
    return Descriptor(
        kind if isinstance(kind, str) else "",
        match.group(1),
        size,
        annotations_of(item.get("annotations")),
    )


def annotations_of(node: object) -> dict[str, str]:
    """Those of an item that are texts."""
    if not isinstance(node, dict):
        return {}
    return {key: text for key, text in node.items() if isinstance(text, str)}


def _shown(kind: object) -> str:
    return f"'{plain(kind, 80)}'" if isinstance(kind, str) and kind else "not given"
