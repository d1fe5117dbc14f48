"""A manifest's packages: files of a version in one tar.gz, Axon's `.axon`, or in a layer of OCI.

Pure; below manifest.py. An invalid `.axon` counts as missing, because a registry with objects does
not need it. Also makes the names of objects without a digest of their own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from axonfs.errors import MalformedError
from axonfs.formats.safe_yaml import Node
from axonfs.names import check_digest, vouching_digest

MAX_PACKAGE_BYTES = 1 << 53
MAX_MIRRORS = 16
MAX_URL = 4000
TAR, TAR_GZIP = "tar", "tar+gzip"  # packings


@dataclass(frozen=True, slots=True)
class Package:
    """One archive of `size` bytes; the first of `urls` is its own, the others are mirrors.

    `digest` is its sha256, None if it is missing or a placeholder. `registry` is the URL of the
    registry that the manifest was published in, empty if unknown. `packing` is a tar or a tar.gz.
    A layer has no URLs: its source knows where its blob is.
    """

    urls: tuple[str, ...]
    size: int
    digest: str | None
    registry: str
    packing: str = TAR_GZIP


def parse_distribution(node: Node) -> Package | None:
    """The package in a manifest's `distribution`; None if it is missing or invalid."""
    distribution = node if isinstance(node, dict) else {}
    item, registry = distribution.get("package"), distribution.get("registry")
    if not isinstance(item, dict):
        return None
    size, mirrors = item.get("size"), item.get("mirrors")
    listed = [item.get("url"), *(mirrors if isinstance(mirrors, list) else ())]
    urls = tuple(url for url in map(_url, listed[: MAX_MIRRORS + 1]) if url)
    if not urls or not isinstance(size, int) or not 0 < size <= MAX_PACKAGE_BYTES:
        return None
    published = _url(registry.get("url")) if isinstance(registry, dict) else ""
    return Package(urls, size, vouching_digest(item.get("sha256")), published)


def parse_layers(node: Node) -> tuple[Package, ...]:
    """The layers that hold files of a snapshot.

    Raises:
        MalformedError: they are not a list of layers.
    """
    if node is None:
        return ()
    if not isinstance(node, list):
        raise MalformedError("spec.format.layers is not a list")
    return tuple(map(_layer, node))


def _layer(node: Node) -> Package:
    item = node if isinstance(node, dict) else {}
    size, packing = item.get("size"), item.get("packing")
    if not isinstance(size, int) or not 0 < size <= MAX_PACKAGE_BYTES:
        raise MalformedError("a layer has no valid size")
    if packing not in (TAR, TAR_GZIP):
        raise MalformedError("the packing of a layer is neither tar nor tar+gzip")
    return Package((), size, check_digest(item.get("sha256")), "", str(packing))


def render_layer(layer: Package) -> dict[str, object]:
    """One item of a snapshot's list of layers."""
    return {"sha256": layer.digest, "size": layer.size, "packing": layer.packing}


def _url(node: Node) -> str:
    return node if isinstance(node, str) and len(node) <= MAX_URL else ""


def packed_digest(package: str, path: str) -> str:
    """The name of the object of a file that only the digest of its package verifies."""
    return hashlib.sha256(f"package {package} {path}".encode()).hexdigest()


def unverified_digest(base: str, manifest: str, path: str) -> str:
    """The name of the object of an unverified file.

    The name is unique to the registry `base` and to the manifest with the sha256 `manifest`.
    """
    return hashlib.sha256(f"unverified {base.rstrip('/')} {manifest} {path}".encode()).hexdigest()
