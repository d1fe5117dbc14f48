"""The upload of an object to an object store: in one request, or in parts at the same time.

The file was read before, for its digests; each part is read again, compared with the chunk table,
and sent. A publisher that dies leaves an unfinished upload, and the next one that uploads the same
object continues it: parts that the store has are compared with the file and not sent again. So two
publishers of the same object may send the parts of one upload, and one of them completes it for
both. Blocking.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from axonfs.errors import AxonError, NotFoundError
from axonfs.formats.chunktable import ChunkTable
from axonfs.ranges import Range
from axonfs.storage.parts import parts_of, read_part, results

MAX_PARTS = 10_000
ATTEMPTS = 3  # another publisher may complete or replace an upload before this one does


class Bucket(Protocol):
    """The requests that an upload makes."""

    def request(self, operation: str, key: str, **arguments: Any) -> dict[str, Any]:
        """Make a request for the file with this key."""
        ...

    def unfinished(self, key: str) -> Iterable[str]:
        """The ids of the unfinished uploads of this key."""
        ...

    def size(self, key: str) -> int | None:
        """The size of the file with this key; None if it does not exist."""
        ...


class S3Upload:
    """The object in the open file `fd`.

    Args:
        threads: send the parts.
        sent: called with the size of each part that the store has, in any thread. An exception
            from it ends the upload.
    """

    def __init__(
        self, fd: int, bucket: Bucket, threads: ThreadPoolExecutor, sent: Callable[[int], object]
    ) -> None:
        self._fd = fd
        self._bucket = bucket
        self._threads = threads
        self._sent = sent
        self._counted: set[int] = set()  # the parts that `sent` knows

    def write(self, piece: memoryview) -> None:
        self._sent(0)  # raises if the publish was stopped

    def settle(self, key: str, digest: str, table: ChunkTable) -> None:
        parts = parts_of(table, MAX_PARTS)
        if len(parts) > 1:
            self._settle_parts(key, table, parts)
            return
        body = read_part(self._fd, Range(0, table.size), table)
        sha256 = b64encode(bytes.fromhex(digest)).decode()
        self._bucket.request("put_object", key, Body=body, ChecksumSHA256=sha256)
        self._sent(table.size)

    def _settle_parts(self, key: str, table: ChunkTable, parts: list[Range]) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            upload, known = self._begun(key) if attempt == 1 else (self._new(key), {})
            try:
                self._send_parts(key, table, parts, upload, known)
                return
            except AxonError as exc:
                # 404: another publisher has completed the same upload. 400: it has sent a part of
                # it again, and its ETag is another one if the store encrypts.
                if exc.status not in (400, 404):
                    raise
                if self._bucket.size(key) == table.size:
                    return
                if attempt == ATTEMPTS:
                    raise

    def _send_parts(
        self,
        key: str,
        table: ChunkTable,
        parts: list[Range],
        upload: str,
        known: dict[int, dict[str, Any]],
    ) -> None:
        def send(number: int) -> dict[str, object]:
            body = read_part(self._fd, parts[number - 1], table)
            tags = self._send_part(key, upload, number, body, known.get(number, {}))
            self._sent(0 if number in self._counted else len(body))
            self._counted.add(number)
            return tags

        jobs = [self._threads.submit(send, number) for number in range(1, len(parts) + 1)]
        done = {"Parts": results(jobs)}
        self._bucket.request(
            "complete_multipart_upload", key, UploadId=upload, MultipartUpload=done
        )

    def _send_part(
        self, key: str, upload: str, number: int, body: bytes, known: Mapping[str, Any]
    ) -> dict[str, object]:
        """Send a part, unless the store has it; return what completes the upload."""
        tags = {"PartNumber": number, "ChecksumCRC32": _crc32(body)}
        if known and known["ETag"].strip('"') == _md5(body):  # encrypted ones have another ETag
            return {**tags, "ETag": known["ETag"]}
        arguments = {"UploadId": upload, "Body": body, **tags}
        found = self._bucket.request("upload_part", key, **arguments)
        return {**tags, "ETag": found["ETag"]}

    def _begun(self, key: str) -> tuple[str, dict[int, dict[str, Any]]]:
        """The upload to continue, or a new one, and its parts by number."""
        for upload in self._bucket.unfinished(key):
            with contextlib.suppress(NotFoundError):
                return upload, {part["PartNumber"]: part for part in self._listed(key, upload)}
        return self._new(key), {}

    def _new(self, key: str) -> str:
        made = self._bucket.request("create_multipart_upload", key, ChecksumAlgorithm="CRC32")
        return str(made["UploadId"])

    def _listed(self, key: str, upload: str) -> Iterator[dict[str, Any]]:
        marker = 0
        while True:
            page = self._bucket.request("list_parts", key, UploadId=upload, PartNumberMarker=marker)
            yield from page.get("Parts", ())
            if not page.get("IsTruncated"):
                return
            marker = int(page["NextPartNumberMarker"])


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _crc32(body: bytes) -> str:
    return b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
