"""Which model and file an error in the mount is about: added to an AxonError from its place."""

from __future__ import annotations

from axonfs.errors import naming
from axonfs.vfs.paths import File, Folder, Place


def blaming(place: Place, name: str | None = None) -> naming:
    """Have each AxonError that leaves the block name the spec and the path of `place`.

    Args:
        name: what is looked up in it.
    """
    spec, path = _subject(place)
    if name is not None:
        path = f"{path or ''}/{name}".lstrip("/")
    return naming(spec=spec, path=path)


def _subject(place: Place) -> tuple[str | None, str | None]:
    if isinstance(place, File):
        return str(place.version.spec), place.entry.path
    if isinstance(place, Folder):
        return str(place.version.spec), place.inner or None
    return None, "/".join(place.path) or "/"
