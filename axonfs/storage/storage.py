"""The interface of a storage, and what its methods return. Other packages know only these."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from axonfs.formats.chunktable import ChunkTable


class Content(NamedTuple):
    """A small file's bytes; `etag` changes when they do."""

    body: bytes
    etag: str


class Listed(NamedTuple):
    """One file in a listing; `modified` in unix seconds, by the storage's clock."""

    key: str
    size: int
    modified: float


class Upload(Protocol):
    """An object on its way into a storage. Nobody sees it before it is settled."""

    def write(self, piece: memoryview) -> None:
        """Take the next bytes of the object. A storage that reads the file itself ignores them."""
        ...

    def settle(self, key: str, digest: str, table: ChunkTable) -> None:
        """Let the object appear under `key`, whole, in place of any other.

        Args:
            digest: the sha256 of its bytes.
            table: its size, and the digests of its chunks.

        Raises:
            AxonError: the file has other bytes by now.
        """
        ...


class Storage(Protocol):
    """The files of one registry.

    Every method raises AxonError, or OSError for a file of this machine. A fault names the storage.
    """

    @property
    def keeps_lists(self) -> bool:
        """Whether it makes versions.json, index.json and the web page itself, from the manifests,
        before `replace`, `put` and `delete` of a version's file return."""
        ...

    @property
    def name(self) -> str:
        """Its path or URL for messages, without credentials."""
        ...

    def prepare(self) -> None:
        """Get it ready for a publisher: create what is missing, and remove what publishers that
        died have left."""
        ...

    def check_namespace(self, namespace: str) -> None:
        """
        Raises:
            AccessDeniedError: this user may not publish into the namespace.
        """
        ...

    def size(self, key: str) -> int | None:
        """The size of a file; None if it does not exist."""
        ...

    def read(self, key: str, limit: int) -> Content | None:
        """A small file; None if it does not exist.

        Raises:
            MalformedError: it has more than `limit` bytes.
        """
        ...

    def list(self, prefix: str) -> Iterator[Listed]:
        """The files whose keys begin with `prefix`, which ends with a slash or is empty.

        Raises:
            AccessDeniedError: the storage does not let this user list its files.
        """
        ...

    def now(self) -> float:
        """Unix seconds by the clock that gives files their times: another machine's, for a bucket
        and for a directory on a network file system.

        Raises:
            AccessDeniedError: the storage does not let this user list its files.
        """
        ...

    def upload(self, fd: int, sent: Callable[[int], object]) -> AbstractContextManager[Upload]:
        """Begin the upload of an object, whose bytes are those of the open file `fd`.

        The end of the block gives up an upload that was not settled.

        Args:
            sent: called in any thread with the number of bytes of each piece that was written. An
                exception from it ends the upload.
        """
        ...

    def put(self, key: str, body: bytes) -> bool:
        """Store a small file that never changes; return False if the key exists already."""
        ...

    def replace(self, key: str, body: bytes, before: Content | None) -> bool:
        """Store a document if it is still `before`; return False if another writer was faster.

        Args:
            before: what `read` returned; None if the document must not exist yet.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove a file; do nothing if it does not exist."""
        ...
