"""Manifests: the files of one version, by path and digest.

Pure. The schema is Axon's (apiVersion axon.mlos.io/v1) with `chunks` added per file. A manifest
comes from outside and decides what the mount shows, so everything in it is checked here, and a
manifest that breaks a rule is refused as a whole. Unknown keys are ignored.

A snapshot (kind Snapshot) is the same document made from a hub's list of files. Its files may have
a git blob id instead of a sha256. It may have no files. If it has a file or a directory
`manifest.yaml`, that is shown in place of the manifest.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from operator import attrgetter

import yaml

from axonfs.errors import MalformedError
from axonfs.formats.entries import (
    DEFAULT_CHUNK_SIZE,
    MANIFEST_NAME,
    MAX_CHUNK_SIZE,
    MAX_CHUNKS,
    MAX_FILES,
    MAX_PACKED,
    MAX_SIZE,
    MIN_CHUNK_SIZE,
    ChunkRef,
    FileEntry,
    ManifestContext,
    check_chunk_size,
    chunk_count,
    git_digest,
    mapping,
    parse_files,
)
from axonfs.formats.leftout import printable_paths, usable_nodes
from axonfs.formats.package import Package, parse_distribution, parse_layers, render_layer
from axonfs.formats.safe_yaml import Node, parse_yaml
from axonfs.names import LATEST, Spec, plain, printable, valid_segment
from axonfs.units import unix_time

API_VERSION = "axon.mlos.io/v1"
MODEL, SNAPSHOT = "Model", "Snapshot"  # kinds
MAX_MANIFEST_BYTES = 16 << 20
MAX_TEXT = 4000
MAX_TAGS = 100
# entries.py has the names that concern single files; other modules import them from here.
__all__ = [
    "API_VERSION",
    "DEFAULT_CHUNK_SIZE",
    "MANIFEST_NAME",
    "MAX_CHUNKS",
    "MAX_CHUNK_SIZE",
    "MAX_FILES",
    "MAX_MANIFEST_BYTES",
    "MAX_PACKED",
    "MAX_SIZE",
    "MAX_TAGS",
    "MAX_TEXT",
    "MIN_CHUNK_SIZE",
    "MODEL",
    "SNAPSHOT",
    "ChunkRef",
    "FileEntry",
    "Manifest",
    "check_chunk_size",
    "chunk_count",
    "git_digest",
    "parse_manifest",
    "render_manifest",
]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version.

    Args:
        files: sorted by path.
        format: the format of the files.
        created: in unix seconds, 0.0 if unknown.
        execution_format: the format that a runtime should load.
        raw: the document itself, which readers see as `manifest.yaml`.
        left_out: paths of files that no directory can hold, in printable form.
        layers: archives that hold files of a snapshot.
    """

    spec: Spec
    files: tuple[FileEntry, ...]
    description: str = ""
    license: str = ""
    framework: str = ""
    format: str = ""
    tags: tuple[str, ...] = ()
    created: float = 0.0
    execution_format: str = ""
    raw: bytes = field(default=b"", repr=False)
    kind: str = MODEL
    package: Package | None = None
    left_out: tuple[str, ...] = ()
    layers: tuple[Package, ...] = ()
    digest: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha256(self.raw).hexdigest())

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    @property
    def unverified(self) -> int:
        """The number of files without a digest to verify them."""
        return sum(entry.unverified for entry in self.files)

    @property
    def shown(self) -> bool:
        """Whether `manifest.yaml` in the version's directory is this document."""
        at = self._at(folder := f"{MANIFEST_NAME}/")
        inside = at < len(self.files) and self.files[at].path.startswith(folder)
        return not inside and self.file(MANIFEST_NAME) is None

    def part(self, entry: FileEntry) -> Manifest | None:
        """This manifest with only the package that has `entry`, and its files; None without one."""
        if self.package is not None:
            return self
        layer = next((one for one in self.layers if one.digest == entry.packed), None)
        if layer is None:
            return None
        files = tuple(file for file in self.files if file.packed == entry.packed)
        return replace(self, files=files, package=layer, raw=b"")

    def file(self, path: str) -> FileEntry | None:
        """The file at `path`; None if there is none."""
        at = self._at(path)
        if at < len(self.files) and self.files[at].path == path:
            return self.files[at]
        return None

    def _at(self, path: str) -> int:
        return bisect_left(self.files, path, key=attrgetter("path"))


def parse_manifest(raw: bytes, expected: Spec | None = None, base: str = "") -> Manifest:
    """The manifest in `raw`, YAML or JSON.

    Args:
        expected: the requested version, which the manifest must be of (`latest`: any version).
        base: the URL of its registry, which is part of the names of unverified objects.

    Raises:
        MalformedError: the message names the broken rule, and the file if a file breaks it.
    """
    try:
        return _manifest(raw, expected, base)
    except MalformedError as exc:
        # A new error: its message names the manifest for faults from every helper.
        raise MalformedError(
            f"the manifest is refused: {exc.what}", spec=str(expected) if expected else None
        ) from exc


def _manifest(raw: bytes, expected: Spec | None, base: str) -> Manifest:
    root = mapping(parse_yaml(raw, limit=MAX_MANIFEST_BYTES), "the document")
    if root.get("apiVersion") not in (API_VERSION, "v1"):
        raise MalformedError(f"apiVersion is not {API_VERSION}")
    kind = root.get("kind", MODEL)
    if kind not in (MODEL, SNAPSHOT):
        raise MalformedError(f"kind is neither {MODEL} nor {SNAPSHOT}")
    metadata = mapping(root.get("metadata"), "metadata")
    body = mapping(root.get("spec"), "spec")
    layout = mapping(body.get("format"), "spec.format")
    package = parse_distribution(root.get("distribution")) if kind == MODEL else None
    layers = parse_layers(layout.get("layers")) if kind == SNAPSHOT else ()
    digest = hashlib.sha256(raw).hexdigest()
    context = ManifestContext(digest, base, kind == SNAPSHOT, package, layers)
    files, left_out = usable_nodes(layout.get("files"))
    return Manifest(
        spec=_spec(metadata, expected),
        files=parse_files(files, context),
        description=_text(metadata.get("description")),
        license=_text(metadata.get("license")),
        framework=_named(body.get("framework")),
        format=_text(layout.get("type")),
        tags=_tags(metadata.get("tags")),
        created=unix_time(metadata.get("created")),
        execution_format=_text(layout.get("execution_format")),
        raw=raw,
        kind=str(kind),
        package=package,
        left_out=printable_paths([*_list(layout.get("left_out")), *left_out]),
        layers=layers,
    )


def _list(node: Node) -> list[Node]:
    return node if isinstance(node, list) else []


def _text(node: Node) -> str:
    """Free text on one line; empty if `node` is not text."""
    return plain(str(node), MAX_TEXT) if isinstance(node, str | int) else ""


def _named(node: Node) -> str:
    """A framework's name: Axon writes a mapping of name and version, or only the name."""
    return _text(node.get("name") if isinstance(node, dict) else node)


def _tags(node: Node) -> tuple[str, ...]:
    texts = map(_text, node) if isinstance(node, list) else iter(())
    return tuple(text for text in texts if text)[:MAX_TAGS]


def _spec(metadata: dict[str, Node], expected: Spec | None) -> Spec:
    namespace, name, version = (
        str(metadata.get(key) or "") for key in ("namespace", "name", "version")
    )
    if not all(map(valid_segment, (namespace, *name.split("/"), version))) or version == LATEST:
        shown = printable(f"{namespace}/{name}@{version}")
        raise MalformedError(f"namespace, name and version are not a valid spec: '{shown}'")
    spec = Spec(namespace, name, version)
    if expected and (spec.model, LATEST) != (expected.model, expected.version) and spec != expected:
        raise MalformedError(f"it is the manifest of {spec}, not of {expected}")
    return spec


def render_manifest(manifest: Manifest) -> bytes:
    """The document of `manifest`; ignores its `raw`.

    Raises:
        MalformedError: the document would be invalid.
    """
    tree = {
        "apiVersion": API_VERSION,
        "kind": manifest.kind,
        "metadata": _rendered_metadata(manifest),
        "spec": {
            "framework": {"name": plain(manifest.framework, MAX_TEXT)},
            "format": {
                "type": plain(manifest.format, MAX_TEXT),
                **_rendered_execution(manifest),
                **({"left_out": list(manifest.left_out)} if manifest.left_out else {}),
                **({"layers": list(map(render_layer, manifest.layers))} if manifest.layers else {}),
                "files": [_rendered_file(entry) for entry in manifest.files],
            },
        },
    }
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    raw: bytes = yaml.dump(
        tree, Dumper=dumper, sort_keys=False, allow_unicode=True, width=1 << 20, encoding="utf-8"
    )
    parse_manifest(raw, manifest.spec)
    return raw


def _rendered_metadata(manifest: Manifest) -> dict[str, object]:
    moment = datetime.fromtimestamp(manifest.created, UTC)
    return {
        "name": manifest.spec.name,
        "namespace": manifest.spec.namespace,
        "version": manifest.spec.version,
        "description": plain(manifest.description, MAX_TEXT),
        "license": plain(manifest.license, MAX_TEXT),
        "created": moment.isoformat().replace("+00:00", "Z"),
        "tags": [plain(tag, MAX_TEXT) for tag in manifest.tags],
    }


def _rendered_execution(manifest: Manifest) -> dict[str, object]:
    text = plain(manifest.execution_format, MAX_TEXT)
    return {"execution_format": text} if text else {}


def _rendered_file(entry: FileEntry) -> dict[str, object]:
    item: dict[str, object] = {"path": entry.path, "size": entry.size}
    if entry.packed:
        return item | {"packed": entry.packed}
    item |= {"git": entry.git} if entry.git else {"sha256": entry.digest}
    item |= {"executable": True} if entry.executable else {}
    if entry.chunks:
        item["chunks"] = {"size": entry.chunks.size, "sha256": entry.chunks.digest}
    return item
