"""Documents of a registry directory on this machine, by file URLs.

Beside documents.py, which calls it. The bytes of objects are read by axonfs.sources.copies.
Blocking; any thread.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote, urlsplit

from axonfs.errors import (
    AccessDeniedError,
    MalformedError,
    NotFoundError,
    UnavailableError,
    VanishedError,
)
from axonfs.http_client.answers import Answer
from axonfs.http_client.signing import Signed
from axonfs.names import printable
from axonfs.units import size as shown_size

MOUNTED = "check that its disk is mounted"
_PARTS = ("/api/v1/", "/objects/sha256/", "/chunks/sha256/")


def path_of(url: str) -> str:
    """The path that a file URL names."""
    return os.fsdecode(unquote(urlsplit(url).path, errors="surrogateescape"))


def read(url: str, limit: int, etag: str | None) -> tuple[bytes, str] | None:
    """A document and its ETag; None if that is still `etag`.

    Raises:
        NotFoundError: the registry does not have it.
        UnavailableError: there is no registry in the directory, or the file cannot be read.
        AccessDeniedError: this user may not read it.
        MalformedError: it is larger than `limit`.
    """
    path = path_of(url)
    try:
        with open(path, "rb", opener=_at_once) as file:
            status = os.fstat(file.fileno())
            found = f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'
            if found == etag:
                return None
            body = file.read(limit + 1) or b""
    except OSError as exc:
        _explain(exc, path)
    if len(body) > limit:
        raise MalformedError(f"the document is larger than {shown_size(limit)}", source=path)
    return body, found


def _explain(exc: OSError, path: str) -> NoReturn:
    shown = printable(path)
    if isinstance(exc, PermissionError):
        denied = AccessDeniedError("this user may not read the file", source=shown)
        denied.status = 401
        raise denied from exc
    if isinstance(exc, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        check_registry(path)
        raise NotFoundError("the registry has no such file", source=shown) from exc
    what = f"the file cannot be read: {exc.strerror}"
    raise UnavailableError(what, source=shown, hint=MOUNTED) from exc


def check_registry(path: str) -> None:
    """
    Raises:
        UnavailableError: no directory above `path` is a registry now. An empty mountpoint of a
            disk must not look like an empty registry.
    """
    root = next((path.rpartition(part)[0] for part in _PARTS if part in path), path)
    if not os.path.isdir(f"{root}/api/v1"):
        what = "there is no registry in this directory now"
        raise UnavailableError(what, source=printable(root or "/"), hint=MOUNTED)


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # otherwise opening a pipe waits for its writer


class Files:
    """Takes the place of a signer for file URLs, of which only documents can be had."""

    def sign(self, url: str) -> Signed:
        """
        Raises:
            VanishedError: the directory has no usable copy of an object.
            UnavailableError: there is no registry in the directory now, or `url` is a package's.
        """
        path = path_of(url)
        if Path(path).exists() and "/objects/sha256/" not in path:
            hint = "axonfs registry serve DIR gives the directory a URL"
            what = "packages are not read from a directory"
            raise UnavailableError(what, source=printable(path), hint=hint)
        check_registry(path)
        what = "the registry's directory has no usable copy of this object"
        raise VanishedError(what, source=printable(path))

    def refused(self, url: str, signed: Signed, answer: Answer, said: bytes) -> bool:
        return False
