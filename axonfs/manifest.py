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
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter

import yaml

from axonfs.distribution import Package, packed_digest, parse_distribution, unverified_digest
from axonfs.errors import MalformedError
from axonfs.names import (
    LATEST,
    Spec,
    check_digest,
    check_git,
    check_path,
    plain,
    printable,
    valid_segment,
    vouching_digest,
)
from axonfs.yamldoc import Node, parse_yaml

API_VERSION = "axon.mlos.io/v1"
MANIFEST_NAME = "manifest.yaml"  # in the registry and in the version's directory
MODEL, SNAPSHOT = "Model", "Snapshot"  # kinds
DEFAULT_CHUNK_SIZE = 1 << 20
MIN_CHUNK_SIZE = 64 << 10
MAX_CHUNK_SIZE = 64 << 20
# 4 TiB at the default chunk size, 256 TiB at the largest; a table is then 128 MiB.
MAX_CHUNKS = 1 << 22
MAX_MANIFEST_BYTES = 16 << 20
MAX_FILES = 100_000
MAX_PACKED = 256  # files that wait for the end of their package; each holds a chunk in memory
MAX_SIZE = 1 << 53
MAX_TEXT = 4000
MAX_TAGS = 100
_NOTHING = hashlib.sha256().hexdigest()  # of a file with bytes it is a placeholder


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """A file's chunks: their size in bytes, and the sha256 of the chunk table."""

    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file; `digest` is its sha256 in hex, `chunks` None where there is no chunk table.

    Where a hub knows only the git blob id, that is `git`, and `digest` is made from it: a name
    for the object, which no bytes are compared with. So it is where the manifest gives a file no
    sha256 of its own: `packed` is then the sha256 of the package, which vouches for it. Where the
    package has none either the file is `unverified`: nothing tells whether its bytes are right.
    """

    path: str
    size: int
    digest: str
    chunks: ChunkRef | None = None
    git: str | None = None
    packed: str | None = None
    unverified: bool = False

    @property
    def named(self) -> bool:
        """Whether `digest` is a name only, and the bytes come in a package or not at all."""
        return self.unverified or self.packed is not None

    @property
    def proof(self) -> dict[str, str]:
        """What its bytes are compared with, by the name of its kind."""
        if self.unverified:
            return {"unverified": "no sha256"}
        if self.packed:
            return {"package": self.packed}
        return {"git": self.git} if self.git else {"sha256": self.digest}


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version. `files` are sorted by path; `created` is in unix seconds, 0.0 if unknown.
    `format` is what the files are, `execution_format` what a runtime is to load of them.

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


def chunk_count(size: int, chunk_size: int) -> int:
    """How many chunks an object of `size` bytes has."""
    return -(-size // chunk_size)


def git_digest(git: str) -> str:
    """The name of the object with this git blob id, beside those named by their sha256."""
    return hashlib.sha256(f"git blob {git}".encode()).hexdigest()


def parse_manifest(raw: bytes, expected: Spec | None = None, base: str = "") -> Manifest:
    """The manifest in `raw`, YAML or JSON.

    Args:
        base: where it comes from, which names the objects that nothing vouches for.
        expected: what was asked for; the manifest must be of that version (any version, where
            `latest` was asked for).

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
    root = _mapping(parse_yaml(raw, limit=MAX_MANIFEST_BYTES), "the document")
    if root.get("apiVersion") not in (API_VERSION, "v1"):
        raise MalformedError(f"apiVersion is not {API_VERSION}")
    kind = root.get("kind", MODEL)
    if kind not in (MODEL, SNAPSHOT):
        raise MalformedError(f"kind is neither {MODEL} nor {SNAPSHOT}")
    metadata = _mapping(root.get("metadata"), "metadata")
    body = _mapping(root.get("spec"), "spec")
    layout = _mapping(body.get("format"), "spec.format")
    package = parse_distribution(root.get("distribution")) if kind == MODEL else None
    origin = _Origin(hashlib.sha256(raw).hexdigest(), base, kind == SNAPSHOT, package)
    return Manifest(
        spec=_spec(metadata, expected),
        files=_files(layout.get("files"), origin),
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
    )


def _mapping(node: Node, what: str) -> dict[str, Node]:
    if isinstance(node, dict):
        return node
    raise MalformedError(f"{what} is not a mapping")


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
        raise MalformedError(f"namespace, name and version do not make a spec: {shown!r}")
    spec = Spec(namespace, name, version)
    if expected and (spec.model, LATEST) != (expected.model, expected.version) and spec != expected:
        raise MalformedError(f"it is the manifest of {spec}, not of {expected}")
    return spec


@dataclass(frozen=True, slots=True)
class _Origin:
    """What the entries of a document's files have in common."""

    digest: str  # of the document
    base: str
    snapshot: bool
    package: Package | None

    def without_digest(self, path: str, size: int) -> FileEntry:
        """A file of which the manifest gives no sha256: its package vouches for it, or nothing."""
        if self.package and self.package.digest:
            name = packed_digest(self.package.digest, path)
            return FileEntry(path, size, name, packed=self.package.digest)
        name = unverified_digest(self.base, self.digest, path)
        return FileEntry(path, size, name, unverified=True)


def _files(node: Node, origin: _Origin) -> tuple[FileEntry, ...]:
    if not isinstance(node, list) or not (node or origin.snapshot):
        raise MalformedError("spec.format.files is not a list of files")
    if len(node) > MAX_FILES:
        raise MalformedError(f"it has {len(node)} files, more than {MAX_FILES}")
    files = sorted((_file(item, origin) for item in node), key=attrgetter("path"))
    _refuse_collisions(files, origin.snapshot)
    if origin.package and sum(entry.named for entry in files) > MAX_PACKED:
        raise MalformedError(f"more than {MAX_PACKED} files have no sha256")
    if sum(entry.size for entry in files) > MAX_SIZE:
        raise MalformedError("the sum of the sizes is out of bounds")
    return tuple(files)


def _refuse_collisions(files: Iterable[FileEntry], snapshot: bool) -> None:
    directories: set[str] = set()
    paths: set[str] = set()
    for entry in files:
        if entry.path in paths:
            raise MalformedError(f"the path {printable(entry.path)!r} is there twice")
        paths.add(entry.path)
        # A parent that is known has had its own parents added.
        parent = entry.path.rpartition("/")[0]
        while parent and parent not in directories:
            directories.add(parent)
            parent = parent.rpartition("/")[0]
    if not snapshot and MANIFEST_NAME in paths | directories:
        raise MalformedError(f"the path {MANIFEST_NAME!r} is the manifest's own")
    if both := paths & directories:
        raise MalformedError(f"{printable(min(both))!r} is a file and a directory at once")


def _file(node: Node, origin: _Origin) -> FileEntry:
    item = _mapping(node, "an entry of spec.format.files")
    path = item.get("path")
    if not isinstance(path, str | int):
        raise MalformedError("a file has no path")
    path = check_path(str(path))
    try:
        size = _size(item.get("size"), "size")
        if origin.snapshot and "git" in item:
            git = check_git(item["git"])
            _bound_chunks(size, None)
            return FileEntry(path, size, git_digest(git), git=git)
        chunks = _chunks(item.get("chunks")) if size else None
        _bound_chunks(size, chunks)
        if origin.snapshot or chunks:  # made by a program, which knew the bytes
            return FileEntry(path, size, _digest(item.get("sha256")), chunks)
        if "git" in item:
            raise MalformedError("a git blob id is for snapshots")
        digest = vouching_digest(item.get("sha256"))
        if size == 0:
            return FileEntry(path, size, digest or _NOTHING)
        if digest is None or digest == _NOTHING:
            return origin.without_digest(path, size)
        return FileEntry(path, size, digest)
    except MalformedError as exc:
        raise MalformedError(f"{exc.what}, in the file {printable(path)!r}") from exc


def _size(node: Node, what: str) -> int:
    # A bool is text here, so no `true` passes for 1.
    if isinstance(node, int) and 0 <= node <= MAX_SIZE:
        return node
    raise MalformedError(f"{what} is not a whole number between 0 and {MAX_SIZE}")


def _digest(node: Node) -> str:
    # Axon lets a digest be written in capitals.
    return check_digest(node.lower() if isinstance(node, str) else node)


def _chunks(node: Node) -> ChunkRef | None:
    if node is None:
        return None
    item = _mapping(node, "chunks")
    size = _size(item.get("size"), "the chunk size")
    check_chunk_size(size)
    return ChunkRef(size, _digest(item.get("sha256")))


def _bound_chunks(size: int, chunks: ChunkRef | None) -> None:
    """Whoever holds a flag per chunk can afford it, whatever a manifest says."""
    if chunk_count(size, chunks.size if chunks else DEFAULT_CHUNK_SIZE) > MAX_CHUNKS:
        raise MalformedError(f"its {size} bytes are more than {MAX_CHUNKS} chunks")


def check_chunk_size(size: int) -> None:
    """
    Raises:
        MalformedError: `size` is not a power of two between 64 KiB and 64 MiB.
    """
    if not MIN_CHUNK_SIZE <= size <= MAX_CHUNK_SIZE or size & (size - 1):
        raise MalformedError("the chunk size is not a power of two between 64 KiB and 64 MiB")


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
