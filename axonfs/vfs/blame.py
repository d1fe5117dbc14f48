"""Which model and file an error in the mount is about: added to an AxonError from its place."""

from __future__ import annotations

from axonfs.errors import AxonError
from axonfs.vfs.paths import File, Folder, Place


def describe(place: Place) -> tuple[str | None, str | None]:
    """The spec and the path in it that an error about `place` names."""
    if isinstance(place, File):
        return str(place.version.spec), place.entry.path
    if isinstance(place, Folder):
        return str(place.version.spec), place.inner or None
    return None, "/".join(place.path) or "/"


class located:  # noqa: N801 - reads as a phrase: `with located(place):`
    """Adds the spec and the path of `place` to an AxonError that leaves the block.

    Args:
        name: what is looked up in it.
    """

    def __init__(self, place: Place, name: str | None = None) -> None:
        self._place = place
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, AxonError):
            spec, path = describe(self._place)
            if spec is None and exc.spec:  # the error names the model, which says more than a path
                path = None
            elif self._name is not None:
                path = f"{path or ''}/{self._name}".lstrip("/")
            raise exc.located(spec=spec, path=path) from exc
