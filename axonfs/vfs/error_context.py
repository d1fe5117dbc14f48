"""Adds the model and the file to an AxonError that concerns a place in the mount."""

from __future__ import annotations

from axonfs.errors import AxonError, naming
from axonfs.vfs.places import File, Folder, Place


class naming_place:  # noqa: N801 - reads as a phrase: `with naming_place(place):`
    """A block whose AxonErrors name the spec and the path of `place`.

    The texts are made only for an error, since each read enters such a block.

    Args:
        name: the name that is looked up in `place`.
    """

    def __init__(self, place: Place, name: str | None = None) -> None:
        self._place = place
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, AxonError):
            spec, path = _subject(self._place)
            if self._name is not None:
                path = f"{path or ''}/{self._name}".lstrip("/")
            with naming(spec=spec, path=path):
                raise exc


def _subject(place: Place) -> tuple[str | None, str | None]:
    if isinstance(place, File):
        return str(place.version.spec), place.entry.path
    if isinstance(place, Folder):
        return str(place.version.spec), place.inner or None
    return None, "/".join(place.path) or "/"
