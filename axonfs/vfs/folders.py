"""The folders of a version, from the paths of its files. Pure; below paths."""

from __future__ import annotations

from collections.abc import Iterable

from axonfs.formats.manifest import FileEntry

MANIFEST = "manifest.yaml"


def folders(files: Iterable[FileEntry]) -> dict[str, dict[str, FileEntry | None]]:
    """Folder path → its names; the value is None for a folder and for the manifest."""
    found: dict[str, dict[str, FileEntry | None]] = {"": {MANIFEST: None}}
    for entry in files:
        inner, _, name = entry.path.rpartition("/")
        found.setdefault(inner, {})[name] = entry
        while inner:
            parent, _, name = inner.rpartition("/")
            found.setdefault(parent, {})[name] = None
            inner = parent
    return found
