"""Models as a file system of fsspec: `axonfs://nlp/name@1.0.0/config.json`.

Above api. pandas, datasets, dask and others find it by its protocol, through the entry point
`fsspec.specs`; it needs fsspec, which the extra `axonfs[fsspec]` installs. What fails raises the
OSError that readers of files expect.
"""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NoReturn

from fsspec.spec import AbstractFileSystem

from axonfs.client.api import BUFFER_SIZE, Client
from axonfs.client.results import FileInfo, ModelInfo
from axonfs.errors import AxonError, NotFoundError, UsageError

# Seconds that an answer of a registry is used for; a version never changes, but `latest` does.
KEPT_SECONDS = 60.0
KEPT_VERSIONS = 256


_OPTIONS_OF_FSSPEC = frozenset(
    {"asynchronous", "listings_expiry_time", "loop", "max_paths", "use_listings_cache"}
)


class _SizedReader(io.BufferedReader):
    """A file that also has its size, as fsspec's own files do."""

    def __init__(self, raw: io.RawIOBase, buffer_size: int) -> None:
        self.size = raw.seek(0, os.SEEK_END)
        raw.seek(0)
        super().__init__(raw, buffer_size)


class AxonFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The versions of models as directories `namespace/name@version`, read-only.

    The version is the latest one for `@latest`, and the highest that it allows for a constraint
    such as `@^1.2`. What no registry lists, such as the models of a hub, can be opened and listed
    by its name. Arguments are those of `axonfs.Client`.
    """

    protocol = "axonfs"
    root_marker = ""

    def __init__(
        self,
        *,
        registries: str | Sequence[str] = (),
        cache: str | os.PathLike[str] | None = None,
        cache_size: int | str | None = None,
        offline: bool | None = None,
        deadline: float | None = None,
        streams: int | None = None,
        tokens: Mapping[str, str] | None = None,
        ca_bundle: str | os.PathLike[str] | None = None,
        **storage_options: Any,
    ) -> None:
        if unknown := storage_options.keys() - _OPTIONS_OF_FSSPEC:
            raise TypeError(f"axonfs has no storage option {min(unknown)}")
        super().__init__(**storage_options)
        self.client = Client(
            registries=registries,
            cache=cache,
            cache_size=cache_size,
            offline=offline,
            deadline=deadline,
            streams=streams,
            tokens=tokens,
            ca_bundle=ca_bundle,
        )
        self._infos: dict[str, tuple[float, ModelInfo]] = {}
        self._specs: tuple[float, list[str]] | None = None

    def invalidate_cache(self, path: str | None = None) -> None:
        """Ask the registries again."""
        self._infos.clear()
        self._specs = None

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """What is in a directory; a file is listed by itself."""
        path = self._strip_protocol(path)
        with _os_errors(path):
            spec, inner = _split(path)
            found = self._in_version(spec, inner) if spec else self._above_versions(path)
        return found if detail else [item["name"] for item in found]

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Name, size and type; of a file also the digest of its bytes."""
        path = self._strip_protocol(path)
        with _os_errors(path):
            spec, inner = _split(path)
            found = self._in_version(spec, inner) if spec else self._above_versions(path)
        return found[0] if [item["name"] for item in found] == [path] else _directory(path)

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Whether there is such a file or directory; raises if a registry could not be asked."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        """The bytes of a file from `start` to `end`, as a slice has them."""
        with self.open(path, "rb") as file:
            first, stop, _ = slice(start, end).indices(file.seek(0, os.SEEK_END))
            file.seek(first)
            data: bytes = file.read(max(stop - first, 0))
            return data

    def modified(self, path: str) -> datetime:
        """When the version was published."""
        with _os_errors(path):
            spec, _ = _split(self._strip_protocol(path))
            if not spec or (created := self._info(spec).created) is None:
                raise NotFoundError("its registry does not tell when it was published", path=path)
            return created

    created = modified

    def ukey(self, path: str) -> str:
        """The digest of a file's bytes, which changes when they do."""
        found = self.info(path)
        return str(found.get("digest") or super().ukey(path))

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> io.BufferedReader:
        if mode != "rb":
            _refuse(path)
        with _os_errors(path):
            spec, inner = _split(path)
            if not spec:
                raise NotFoundError("no version in the path", path=path, hint=_FORM)
            return _SizedReader(self.client.open(spec, inner, buffering=0), BUFFER_SIZE)

    def _in_version(self, spec: str, inner: str) -> list[dict[str, Any]]:
        found, below = dict[str, dict[str, Any]](), f"{inner}/" if inner else ""
        for file in self._info(spec).files:
            if file.path == inner:
                return [_file(spec, file)]
            if file.path.startswith(below):
                name, slash, _ = file.path[len(below) :].partition("/")
                path = f"{spec}/{below}{name}"
                found[path] = _directory(path) if slash else _file(spec, file)
        if inner and not found:
            raise NotFoundError("no such file", spec=spec, path=inner)
        return list(found.values())

    def _above_versions(self, path: str) -> list[dict[str, Any]]:
        below = f"{path}/" if path else ""
        try:
            names = [spec[len(below) :] for spec in self._listed() if spec.startswith(below)]
        except AxonError:  # such as of a registry that has a search, and no index
            if "/" not in path:
                raise
            names = []
        paths = {f"{below}{name.partition('/')[0]}" for name in names}
        if "/" in path and not paths:  # a model, perhaps one that no registry lists
            versions = self.client.versions(path).versions
            paths = {f"{path}@{item.version}" for item in versions}
        if path and not paths:
            raise NotFoundError("no such directory", path=path, hint=_FORM)
        return [_directory(path) for path in sorted(paths)]

    def _info(self, spec: str) -> ModelInfo:
        now, known = time.monotonic(), self._infos.get(spec)
        if known is None or now - known[0] > KEPT_SECONDS:
            while len(self._infos) >= KEPT_VERSIONS:
                self._infos.pop(next(iter(self._infos)), None)
            known = self._infos[spec] = (now, self.client.info(spec))
        return known[1]

    def _listed(self) -> list[str]:
        now, known = time.monotonic(), self._specs
        if known is None or now - known[0] > KEPT_SECONDS:
            known = self._specs = now, [item.spec for item in self.client.search("")]
        return known[1]

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> NoReturn:
        """Refused: all is read-only."""
        _refuse(path)

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> NoReturn:
        """Refused: all is read-only."""
        _refuse(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> NoReturn:
        """Refused: all is read-only."""
        _refuse(path)

    def rmdir(self, path: str) -> NoReturn:
        """Refused: all is read-only."""
        _refuse(path)

    def rm_file(self, path: str) -> NoReturn:
        """Refused: all is read-only."""
        _refuse(path)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> NoReturn:
        """Refused: all is read-only."""
        _refuse(path2)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Refused: all is read-only."""
        _refuse(path)

    def put_file(self, lpath: str, rpath: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: all is read-only."""
        _refuse(rpath)


_FORM = "write namespace/name@version/path, such as nlp/llama-2-7b@1.0.0/config.json"


def _split(path: str) -> tuple[str, str]:
    """The spec and the path in its version; both are empty for what is above the versions."""
    segments = path.split("/")
    for count, segment in enumerate(segments, 1):
        if "@" in segment:
            return "/".join(segments[:count]), "/".join(segments[count:])
    return "", ""


def _directory(path: str) -> dict[str, Any]:
    return {"name": path, "size": 0, "type": "directory"}


def _file(spec: str, file: FileInfo) -> dict[str, Any]:
    return {
        "name": f"{spec}/{file.path}",
        "size": file.size,
        "type": "file",
        "digest": file.digest,
        "verified_by": file.verified_by,
    }


def _refuse(path: str) -> NoReturn:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)


@contextmanager
def _os_errors(path: str) -> Iterator[None]:
    """Raise an AxonError as the OSError of its errno; what cannot be a model does not exist."""
    try:
        yield
    except AxonError as exc:
        number = errno.ENOENT if isinstance(exc, UsageError) else exc.errno
        raise OSError(number, str(exc), path) from exc
