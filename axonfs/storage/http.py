"""A storage behind `axonfs registry serve`, which takes uploads from those with a token.

The server is the one that changes the registry: it compares each object with its digests, enters a
manifest once everything that it names is there, and makes the lists (serve/publishing.py). So this
storage has no lists to replace, and cannot list files. Blocking; any thread.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NoReturn

from axonfs.errors import (
    AccessDeniedError,
    AxonError,
    DeadlineError,
    NoSpaceError,
    UnsupportedError,
)
from axonfs.formats.chunktable import ChunkTable, decode_table
from axonfs.formats.layout import digest_of, table_key
from axonfs.http_client import Limits, Trust, Writer, Written, shown
from axonfs.http_client.answers import content_length
from axonfs.names import plain
from axonfs.ranges import Range
from axonfs.storage.parts import AT_ONCE, part_size, parts_of, read_part, results
from axonfs.storage.storage import Content, Listed

MAX_PARTS = 1 << 20
# The server answers 202 while it compares an object. It may take COMPARE_SECONDS, and one more for
# each COMPARE_RATE bytes.
COMPARE_SECONDS, COMPARE_RATE = 300.0, 4 << 20
COMPARE_PAUSE = 0.1
ROUNDS = 3  # of the missing parts of an object; another publisher's end of it may drop them
_NO_UPLOADS = frozenset({200, 404, 405, 501})
_NO_TOKEN = "to add a token: axonfs registry add URL --with-token, or set AXONFS_TOKEN"
_BAD_TOKEN = "to replace the token: axonfs registry add URL --with-token"


@dataclass(frozen=True, slots=True)
class _Account:
    """What the token may do; `*` is every namespace."""

    token: str
    publish: frozenset[str]

    def may_publish(self, namespace: str) -> bool:
        return bool(self.publish & {namespace, "*"})


class HttpStorage:
    """The storage at an http or https URL.

    Args:
        token: the token for it.
    """

    keeps_lists = True

    def __init__(
        self, url: str, token: str | None, limits: Limits, trust: Trust | None = None
    ) -> None:
        self._url = url.rstrip("/")
        self._has_token = token is not None
        self._writer = Writer(limits, token, trust)
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="part")
        self._lock = threading.Lock()
        self._known: _Account | None = None

    def __repr__(self) -> str:
        return f"<HttpStorage {self.name}>"

    @property
    def name(self) -> str:
        return shown(self._url)

    def prepare(self) -> None:
        """Find out whether the server takes uploads.

        Raises:
            UnsupportedError: it does not.
            AccessDeniedError: it does not accept the token.
        """
        self._account()

    def check_namespace(self, namespace: str) -> None:
        account = self._account()
        if not account.may_publish(namespace):
            what = f"the token '{account.token}' may not publish into {namespace}"
            hint = "whoever runs the server can create one that may"
            raise AccessDeniedError(what, source=self.name, hint=hint)

    def _account(self) -> _Account:
        with self._lock:
            if self._known is None:
                self._known = self._asked()
            return self._known

    def _asked(self) -> _Account:
        found = self._writer.send("GET", f"{self._url}/api/v1/uploads")
        account = _parsed(found.body) if found.status == 200 else None
        if account is None and found.status in _NO_UPLOADS:
            what = "this server takes no uploads"
            hint = "publish into the directory or bucket that it serves, or serve it with"
            hint += " axonfs registry serve DIR --tokens FILE"
            raise UnsupportedError(what, source=self.name, hint=hint)
        if account is None:
            self._refuse(found)
        return account

    def size(self, key: str) -> int | None:
        found = self._send("HEAD", key, (200, 404))
        return content_length(found.answer.headers) if found.status == 200 else None

    def read(self, key: str, limit: int) -> Content | None:
        found = self._send("GET", key, (200, 404), limit=limit)
        return (
            Content(found.body, found.answer.headers.get("etag", ""))
            if found.status == 200
            else None
        )

    def list(self, prefix: str) -> Iterator[Listed]:
        raise self._unlisted()

    def now(self) -> float:
        raise self._unlisted()

    def _unlisted(self) -> AccessDeniedError:
        what = "the files of a registry cannot be listed over HTTP"
        hint = "run the command on the server, with the registry's directory"
        return AccessDeniedError(what, source=self.name, hint=hint)

    @contextlib.contextmanager
    def upload(self, fd: int, sent: Callable[[int], object]) -> Iterator[HttpUpload]:
        yield HttpUpload(fd, self, self._threads, sent)

    def put(self, key: str, body: bytes) -> bool:
        digest = digest_of(key)
        if digest and key == table_key(digest):
            return self.end_upload(digest, decode_table(body))
        return self.replace(key, body, None)

    def replace(self, key: str, body: bytes, before: Content | None) -> bool:
        condition = {"If-None-Match": "*"} if before is None else {"If-Match": before.etag}
        found = self._send("PUT", key, (201, 204, 412), body, headers=condition)
        # 204: the server had this very document, perhaps from an attempt whose answer was lost.
        return found.status == 201 or (found.status == 204 and found.repeated)

    def delete(self, key: str) -> None:
        self._send("DELETE", key, (204, 404))

    def parts_there(self, digest: str, table: ChunkTable) -> frozenset[int]:
        """The numbers of the parts of an object that the server has from an earlier attempt."""
        found = self._send("GET", _upload_key(digest, table), (200,), limit=8 * MAX_PARTS)
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            return frozenset(map(int, json.loads(found.body)["parts"]))
        return frozenset()

    def send_part(self, digest: str, table: ChunkTable, number: int, body: bytes) -> None:
        """Send a part of an object."""
        self._send("PUT", f"{_upload_key(digest, table)}/{number}", (204,), body)

    def end_upload(self, digest: str, table: ChunkTable) -> bool:
        """Have the server compare the object with its digests, and let it appear; return whether
        `table` is its chunk table now.

        Raises:
            PartsError: the server lacks parts of it.
            DeadlineError: it does not come to an end.
        """
        seconds = COMPARE_SECONDS + table.size / COMPARE_RATE
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = self._send("POST", _upload_key(digest, table), (200, 201, 202), table.encode())
            if found.status != 202:
                return found.status == 201
            time.sleep(COMPARE_PAUSE)
        what = f"the server has compared an object with its digests for {seconds:.0f} s"
        raise DeadlineError(what, source=self.name, hint="see the server's log and its disk")

    def _send(
        self,
        method: str,
        key: str,
        expected: tuple[int, ...],
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        limit: int = 1 << 16,
    ) -> Written:
        url = f"{self._url}/{key}"
        found = self._writer.send(method, url, body, headers=headers, limit=limit)
        if found.status not in expected:
            self._refuse(found)
        return found

    def _refuse(self, found: Written) -> NoReturn:
        """
        Raises:
            AxonError: what the answer means.
        """
        said = found.said or f"the server answered {found.status}"
        source = shown(found.answer.url)
        match found.status:
            case 401:
                hint = _BAD_TOKEN if self._has_token else _NO_TOKEN
                raise AccessDeniedError(said, source=source, hint=hint)
            case 403:
                raise AccessDeniedError(said, source=source)
            case 409:
                raise PartsError(said, source=source, hint="run the command again")
            case 413:
                hint = "raise the limit of the proxy before the server (client_max_body_size)"
                raise AxonError(said, source=source, hint=hint)
            case 507:
                hint = "make room on the server, and run the command again"
                raise NoSpaceError(said, source=source, hint=hint)
        raise AxonError(said, source=source)


class PartsError(AxonError):
    """The server lacks something that the request needs: parts of an object, or an object."""


class HttpUpload:
    """The object in the open file `fd`, which is sent in parts once its digest is known."""

    def __init__(
        self,
        fd: int,
        storage: HttpStorage,
        threads: ThreadPoolExecutor,
        sent: Callable[[int], object],
    ) -> None:
        self._fd = fd
        self._storage = storage
        self._threads = threads
        self._sent = sent
        self._counted: set[int] = set()

    def write(self, piece: memoryview) -> None:
        self._sent(0)  # raises if the publish was stopped

    def settle(self, key: str, digest: str, table: ChunkTable) -> None:
        for left in reversed(range(ROUNDS)):
            self._send_parts(digest, table)
            try:
                self._storage.end_upload(digest, table)
                break
            except PartsError:
                if not left:
                    raise

    def _send_parts(self, digest: str, table: ChunkTable) -> None:
        parts = parts_of(table, MAX_PARTS)
        there = self._storage.parts_there(digest, table) if len(parts) > 1 else frozenset()

        def send(number: int, part: Range) -> None:
            self._storage.send_part(digest, table, number, read_part(self._fd, part, table))
            self._count(number, part)

        for number in there & frozenset(range(len(parts))):
            self._count(number, parts[number])
        results(
            [
                self._threads.submit(send, number, part)
                for number, part in enumerate(parts)
                if number not in there
            ]
        )

    def _count(self, number: int, part: Range) -> None:
        """Report a part that the server has, once."""
        new = number not in self._counted
        self._counted.add(number)
        self._sent(part.size if new else 0)


def _upload_key(digest: str, table: ChunkTable) -> str:
    return f"api/v1/uploads/{digest}/{table.size}/{part_size(table, MAX_PARTS)}"


def _parsed(body: bytes) -> _Account | None:
    """The account that the server describes; None if the answer is something else."""
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        root = json.loads(body)
        return _Account(plain(str(root["token"])), frozenset(map(str, root["publish"])))
    return None
