"""The lock file: versions of models with the digests of their manifests.

Pure. A manifest has a digest for every file, so its own digest fixes all bytes. `files` and `size`
are for readers of the file; `source` is where to look if no configured registry has the version.
docs/versions.md documents the format.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import yaml

from axonfs.errors import MalformedError, UsageError
from axonfs.formats.safe_yaml import Node, parse_yaml
from axonfs.names import LATEST, Spec, check_digest, check_path, parse_spec, plain

API_VERSION = "axonfs/v1"
KIND = "Lock"
# Fits into one request to a mount.
MAX_LOCK_BYTES = 768 << 10
_HEAD = "# Written by `axonfs lock`; `axonfs pin --lock` pins exactly this.\n"


@dataclass(frozen=True, slots=True)
class Locked:
    """One version; `manifest` is the sha256 of its manifest, `size` is in bytes.

    `paths` selects files of the version; None means all files.
    """

    spec: Spec
    manifest: str
    source: str
    files: int
    size: int
    paths: tuple[str, ...] | None = None


def render_lock(versions: Iterable[Locked]) -> bytes:
    """The lock file, sorted by spec: the same versions give the same bytes."""
    ordered = sorted(versions, key=lambda locked: locked.spec)
    tree = {"apiVersion": API_VERSION, "kind": KIND, "versions": [_item(item) for item in ordered]}
    return (_HEAD + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=4096)).encode()


def _item(locked: Locked) -> dict[str, object]:
    item: dict[str, object] = {
        "spec": str(locked.spec),
        "manifest": locked.manifest,
        "source": locked.source,
        "files": locked.files,
        "size": locked.size,
    }
    return item if locked.paths is None else {**item, "paths": list(locked.paths)}


def parse_lock(raw: bytes) -> list[Locked]:
    """The versions of a lock file, in its order.

    Raises:
        MalformedError: it is not a lock file, or has an invalid entry.
    """
    root = parse_yaml(raw, limit=MAX_LOCK_BYTES)
    if not isinstance(root, dict) or (root.get("apiVersion"), root.get("kind")) != (
        API_VERSION,
        KIND,
    ):
        raise MalformedError(f"it is not a lock file with the apiVersion {API_VERSION}")
    items = root.get("versions")
    if not isinstance(items, list):
        raise MalformedError("versions is not a list")
    versions = [_locked(number, item) for number, item in enumerate(items)]
    if len({locked.spec for locked in versions}) < len(versions):
        raise MalformedError("a version is listed twice")
    return versions


def _locked(number: int, node: Node) -> Locked:
    key = f"versions[{number}]"
    if not isinstance(node, dict):
        raise MalformedError(f"{key} is not a mapping")
    source = node.get("source")
    return Locked(
        _spec(key, node.get("spec")),
        _digest(key, node.get("manifest")),
        plain(source, 1000) if isinstance(source, str) else "",
        _count(f"{key}.files", node.get("files")),
        _count(f"{key}.size", node.get("size")),
        _paths(f"{key}.paths", node.get("paths")),
    )


def _spec(key: str, node: Node) -> Spec:
    try:
        spec = parse_spec(str(node))
    except UsageError as exc:
        raise MalformedError(f"{key}.spec: {exc}") from exc
    if spec.version == LATEST:
        raise MalformedError(f"{key}.spec names no version")
    return spec


def _digest(key: str, node: Node) -> str:
    try:
        return check_digest(node)
    except MalformedError as exc:
        raise MalformedError(f"{key}.manifest: {exc.what}") from exc


def _count(key: str, node: Node) -> int:
    if isinstance(node, int):
        return node
    raise MalformedError(f"{key} is not a whole number")


def _paths(key: str, node: Node) -> tuple[str, ...] | None:
    if node is None:
        return None
    if not isinstance(node, list) or not node:
        raise MalformedError(f"{key} is not a list of paths")
    return tuple(check_path(str(path)) for path in node)
