"""Manifests: the files of one version, by path and digest.

Pure. The schema is Axon's (apiVersion axon.mlos.io/v1) with `chunks` added per file. A manifest
comes from outside and decides what the mount shows, so everything in it is checked here, and
nothing of a manifest that breaks a rule is used. Unknown keys are ignored.

A snapshot (kind Snapshot) is the same document made from a hub's listing. Its files may have a
git blob id in place of a sha256, one of them may be a `manifest.yaml` of its own, which is then
what the mount shows, and it may have none.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from dataclasses import dataclass, field
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
from axonfs.formats.leftout import told, usable_nodes
from axonfs.formats.package import Package, parse_distribution
from axonfs.formats.safe_yaml import Node, parse_yaml
from axonfs.names import LATEST, Spec, plain, printable, valid_segment

API_VERSION = "axon.mlos.io/v1"
MODEL, SNAPSHOT = "Model", "Snapshot"  # kinds
MAX_MANIFEST_BYTES = 16 << 20
MAX_TEXT = 4000
MAX_TAGS = 100
# What concerns one file is in entries.py; others import it from here.
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
    """One version. `files` are sorted by path; `created` is in unix seconds, 0.0 if unknown.
    `format` is what the files are, `execution_format` what a runtime is to load of them.

    `left_out` are the paths of files that no directory can hold, made printable.
    `raw` is the document as it came, which its readers see as `manifest.yaml`.
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
    digest: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha256(self.raw).hexdigest())

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    @property
    def unverified(self) -> int:
        """How many files have no digest that could tell whether their bytes are right."""
        return sum(entry.unverified for entry in self.files)

    def file(self, path: str) -> FileEntry | None:
        at = bisect_left(self.files, path, key=attrgetter("path"))
        if at < len(self.files) and self.files[at].path == path:
            return self.files[at]
        return None


def parse_manifest(raw: bytes, expected: Spec | None = None, base: str = "") -> Manifest:
    """The manifest in `raw`, YAML or JSON.

    Args:
        expected: what was asked for; the manifest must be of that version (any version, where
            `latest` was asked for).
        base: where it comes from; part of the name of each object that is not verified.

    Raises:
        MalformedError: the message names the rule that is broken, and the file where one does.
    """
    try:
        return _manifest(raw, expected, base)
    except MalformedError as exc:
        # Built anew: the message reads as one about the manifest, whichever helper found it.
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
    context = ManifestContext(hashlib.sha256(raw).hexdigest(), base, kind == SNAPSHOT, package)
    files, left_out = usable_nodes(layout.get("files"))
    return Manifest(
        spec=_spec(metadata, expected),
        files=parse_files(files, context),
        description=_text(metadata.get("description")),
        license=_text(metadata.get("license")),
        framework=_named(body.get("framework")),
        format=_text(layout.get("type")),
        tags=_tags(metadata.get("tags")),
        created=_time(metadata.get("created")),
        execution_format=_text(layout.get("execution_format")),
        raw=raw,
        kind=str(kind),
        package=package,
        left_out=told([*_list(layout.get("left_out")), *left_out]),
    )


def _list(node: Node) -> list[Node]:
    return node if isinstance(node, list) else []


def _text(node: Node) -> str:
    """Free text for people, on one line; anything else than text is nothing."""
    return plain(str(node), MAX_TEXT) if isinstance(node, str | int) else ""


def _named(node: Node) -> str:
    """Axon's framework is a mapping with a name and a version; a name alone will do."""
    return _text(node.get("name") if isinstance(node, dict) else node)


def _tags(node: Node) -> tuple[str, ...]:
    texts = map(_text, node) if isinstance(node, list) else iter(())
    return tuple(text for text in texts if text)[:MAX_TAGS]


def _time(node: Node) -> float:
    """RFC 3339 to unix seconds; 0.0 for anything else, and for Go's zero time, year 1."""
    if not isinstance(node, str):
        return 0.0
    try:
        moment = datetime.fromisoformat(node)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(moment.timestamp(), 0.0)
    except (ValueError, OverflowError):
        return 0.0


def _spec(metadata: dict[str, Node], expected: Spec | None) -> Spec:
    namespace, name, version = (
        str(metadata.get(key) or "") for key in ("namespace", "name", "version")
    )
    if not all(map(valid_segment, (namespace, *name.split("/"), version))) or version == LATEST:
        shown = printable(f"{namespace}/{name}@{version}")
        raise MalformedError(f"namespace, name and version do not make a spec: '{shown}'")
    spec = Spec(namespace, name, version)
    if expected and (spec.model, LATEST) != (expected.model, expected.version) and spec != expected:
        raise MalformedError(f"it is the manifest of {spec}, not of {expected}")
    return spec


def render_manifest(manifest: Manifest) -> bytes:
    """What is published of `manifest`; its `raw` is not looked at.

    Raises:
        MalformedError: nobody would accept it.
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
    item |= {"git": entry.git} if entry.git else {"sha256": entry.digest}
    if entry.chunks:
        item["chunks"] = {"size": entry.chunks.size, "sha256": entry.chunks.digest}
    return item
