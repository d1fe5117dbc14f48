"""What is inside versions: their files and folders, and the manifest. Beside paths; no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from axonfs.formats.manifest import FileEntry
from axonfs.names import HUB_VIEW, Spec
from axonfs.vfs.places import Entry, File, Folder, Place, manifest_file

MANIFEST = "manifest.yaml"
KEPT = 256  # versions whose folders stay in memory

Children = Mapping[str, FileEntry | None]


class Inside:
    """Lookup and listing inside versions.

    A version is at two places: at its own, and as a snapshot of the hub view, which has its files
    alone. These are the same files, with the same inodes, so the kernel caches their bytes once.
    """

    def __init__(self) -> None:
        self._folders: dict[Spec, dict[str, dict[str, FileEntry | None]]] = {}

    def child(self, parent: Folder, name: str) -> Place | None:
        """What has `name` in a folder; None if nothing has."""
        children = self._children(parent)
        return _child(parent, name, children[name]) if name in children else None

    def listing(self, folder: Folder) -> list[Entry]:
        """The entries of a folder, by name, since a version never changes."""
        children = self._children(folder)
        return [
            Entry(number, name, _child(folder, name, children[name]))
            for number, name in enumerate(sorted(children), 1)
        ]

    def _children(self, folder: Folder) -> Children:
        found = self._folders.get(folder.version.spec)
        if found is None:
            while len(self._folders) >= KEPT:
                del self._folders[next(iter(self._folders))]
            found = self._folders[folder.version.spec] = folders(folder.version.manifest.files)
        children = found.get(folder.inner, {})
        if _in_view(folder) and not folder.inner and folder.version.manifest.shown:
            return {name: entry for name, entry in children.items() if name != MANIFEST}
        return children


def _in_view(folder: Folder) -> bool:
    return folder.path[0] == HUB_VIEW


def _child(parent: Folder, name: str, entry: FileEntry | None) -> Place:
    path = (*parent.path, name)
    if entry is not None:
        if _in_view(parent):
            path = (*parent.version.spec.segments, *entry.path.split("/"))
        return File(path, parent.version, entry)
    if not parent.inner and name == MANIFEST and parent.version.manifest.shown:
        return manifest_file(path, parent.version)
    return Folder(path, parent.version, f"{parent.inner}/{name}".lstrip("/"))


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
