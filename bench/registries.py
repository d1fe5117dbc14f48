"""Registries made without publishing: objects of any size, and any number of versions.

`axonfs publish` would take hours for them. The formats come from axonfs.formats.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import defaultdict
from pathlib import Path

from axonfs.formats.chunktable import ChunkTable, chunk_digest
from axonfs.formats.layout import INDEX, manifest_key, object_key, table_key
from axonfs.formats.listing import Versions, listing_of, render_index, render_versions
from axonfs.formats.manifest import DEFAULT_CHUNK_SIZE, FileEntry, Manifest, render_manifest
from axonfs.names import Spec, newest, parse_spec

FILES = {"config.json": 700, "generation_config.json": 120, "tokenizer.json": 5_000_000}
PUBLISHED = 1_700_000_000.0


def write_giant(root: Path, spec: str, size: int) -> str:
    """Write a version with one file of `size` zero bytes, a hole on the disk; return its name.

    The server sends every byte and the mount verifies every chunk. The object's digest is made up:
    with a chunk table no program computes it, and here it would take too long.
    """
    parsed = parse_spec(spec)
    digest = hashlib.sha256(f"{size} zeros".encode()).hexdigest()
    count, rest = divmod(size, DEFAULT_CHUNK_SIZE)
    if rest:
        raise ValueError("the size must be a multiple of the chunk size")
    chunk = chunk_digest(bytes(DEFAULT_CHUNK_SIZE))
    table = ChunkTable(size, DEFAULT_CHUNK_SIZE, chunk * count)
    content, chunks = root / object_key(digest), root / table_key(digest)
    for path in (content, chunks):
        path.parent.mkdir(parents=True, exist_ok=True)
    content.touch()
    os.truncate(content, size)
    chunks.write_bytes(table.encode())
    name = "model.safetensors"
    _write(root, [_manifest(parsed, (FileEntry(name, size, digest, table.ref),))])
    return name


def write_versions(root: Path, models: int, versions: int) -> None:
    """Write `models` models with `versions` versions each; their files are never read."""
    files = tuple(
        FileEntry(name, size, hashlib.sha256(name.encode()).hexdigest(), None)
        for name, size in sorted({**FILES, "model.safetensors": 2_000_000_000}.items())
    )
    specs = [
        Spec("bench", f"model-{model:04}", f"1.{version}.0")
        for model in range(models)
        for version in range(versions)
    ]
    _write(root, [_manifest(spec, files) for spec in specs])


def _manifest(spec: Spec, files: tuple[FileEntry, ...]) -> Manifest:
    bare = Manifest(spec=spec, files=files, format="safetensors", created=PUBLISHED)
    return dataclasses.replace(bare, raw=render_manifest(bare))


def _write(root: Path, manifests: list[Manifest]) -> None:
    models: defaultdict[Path, list[str]] = defaultdict(list)
    for manifest in manifests:
        path = root / manifest_key(manifest.spec)
        path.parent.mkdir(parents=True)
        path.write_bytes(manifest.raw)
        models[path.parents[1]].append(manifest.spec.version)
    for folder, versions in models.items():
        listed = Versions(tuple(versions), newest(versions))
        (folder / "versions.json").write_bytes(render_versions(listed))
    (root / INDEX).write_bytes(render_index(map(listing_of, manifests)))
