"""A model as ModelPack describes it: a raw layer for each file, a config, a manifest. Pure.

Each layer has the file's path both as ModelPack and as ORAS write it, so that tools for either can
pull it. Source: the CNCF ModelPack specification, version 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from axonfs.errors import AxonError
from axonfs.formats.manifest import ChunkRef
from axonfs.oci.config import About
from axonfs.oci.manifest import (
    CHUNK_SIZE,
    CHUNK_TABLE,
    CREATED,
    FILEPATH,
    IMAGE,
    MAX_MANIFEST_BYTES,
    METADATA,
    MODELPACK,
    MODELPACK_CONFIG,
    TITLE,
    Descriptor,
    Layer,
    Model,
    digest_of,
)
from axonfs.units import LAST_SECOND

_WEIGHTS = frozenset(
    "bin ckpt gguf h5 msgpack npz onnx ot pb pt pth safetensors tflite".split()  # noqa: SIM905
)
_DOCUMENTS = frozenset(("md", "pdf", "rst"))
_FIRST_SECOND = -62135596800  # of years with four digits
_CODE = frozenset(("c", "cpp", "cu", "ipynb", "js", "py", "sh"))


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file of a model; `modified` in unix seconds, `chunks` None without a chunk table."""

    path: str
    size: int
    digest: str
    executable: bool
    modified: float
    chunks: ChunkRef | None = None


def packed(name: str, about: About, files: Sequence[PackedFile]) -> tuple[Descriptor, bytes, bytes]:
    """The config of the model `name`, its bytes, and the manifest."""
    body = config_of(name, about, files)
    config = Descriptor(MODELPACK_CONFIG, digest_of(body), len(body))
    return config, body, manifest_of(config, files, about.created)


def config_of(name: str, about: About, files: Sequence[PackedFile]) -> bytes:
    """The config blob, which says of the model `name` what ModelPack has a place for."""
    told = {
        "name": name,
        "description": about.description,
        "createdAt": _time(about.created),
        **({"licenses": [about.license]} if about.license else {}),
    }
    kept = {key: value for key, value in told.items() if value}
    root = {
        "descriptor": kept,
        "config": {"format": about.format} if about.format else {},
        "modelfs": {"type": "layers", "diffIds": [f"sha256:{file.digest}" for file in files]},
    }
    return json.dumps(root, separators=(",", ":")).encode()


def manifest_of(config: Descriptor, files: Sequence[PackedFile], created: float) -> bytes:
    """The manifest.

    Raises:
        AxonError: it would be larger than registries accept.
    """
    root = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "artifactType": MODELPACK,
        "config": rendered(MODELPACK_CONFIG, config.digest, config.size),
        "layers": [_layer(file) for file in files],
        "annotations": {CREATED: _time(created)},
    }
    raw = json.dumps(root, separators=(",", ":")).encode()
    if len(raw) > MAX_MANIFEST_BYTES:
        what = f"the manifest of {len(files):,} files is larger than registries accept (4 MiB)"
        raise AxonError(what, hint="publish them in several models")
    return raw


def same_files(model: Model, files: Sequence[PackedFile]) -> str | None:
    """The path of a file that differs; None if the model has exactly these files."""
    ours = {file.path: (file.digest, file.executable) for file in files}
    return _difference({layer.path: _kind(layer) for layer in model.layers}, ours)


def same_sizes(model: Model, sizes: Mapping[str, int]) -> str | None:
    """The path of a file that has another size; None if the model may have these files."""
    theirs = {layer.path: layer.blob.size for layer in model.layers if layer.packing == "raw"}
    return _difference(theirs, sizes)


def _difference(theirs: Mapping[str, object], ours: Mapping[str, object]) -> str | None:
    changed = [path for path in theirs.keys() | ours.keys() if theirs.get(path) != ours.get(path)]
    return min(changed, default=None)


def _kind(layer: Layer) -> object:
    return (layer.blob.digest, layer.executable) if layer.packing == "raw" else layer.packing


def _layer(file: PackedFile) -> dict[str, Any]:
    notes = {FILEPATH: file.path, METADATA: _metadata(file), TITLE: file.path}
    if file.chunks and file.size:
        notes[CHUNK_SIZE] = str(file.chunks.size)
        notes[CHUNK_TABLE] = f"sha256:{file.chunks.digest}"
    return rendered(_media_type(file.path), file.digest, file.size, notes)


def rendered(
    kind: str, digest: str, size: int, notes: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The descriptor of a blob or a manifest."""
    item: dict[str, Any] = {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}
    return {**item, "annotations": dict(notes)} if notes else item


def _metadata(file: PackedFile) -> str:
    return json.dumps(
        {
            "name": file.path.rpartition("/")[2],
            "mode": 0o755 if file.executable else 0o644,
            "uid": 0,
            "gid": 0,
            "size": file.size,
            "mtime": _time(file.modified),
            "typeflag": 48,  # '0', a regular file, as in tar
        }
    )


def _media_type(path: str) -> str:
    name = path.rpartition("/")[2]
    ending = name.rpartition(".")[2].lower()
    if ending in _WEIGHTS:
        kind = "weight"
    elif ending in _CODE:
        kind = "code"
    elif ending in _DOCUMENTS or name.upper() in ("LICENSE", "NOTICE", "README"):
        kind = "doc"
    else:
        kind = "weight.config"
    return f"application/vnd.cncf.model.{kind}.v1.raw"


def _time(seconds: float) -> str:
    """As in RFC 3339, which has no years before 1 or after 9999."""
    kept = min(max(int(seconds), _FIRST_SECOND), LAST_SECOND)
    return datetime.fromtimestamp(kept, UTC).isoformat().replace("+00:00", "Z")
