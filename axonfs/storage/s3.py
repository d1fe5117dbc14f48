"""A storage in a bucket of S3, or of another object store with its protocol.

A store shows each file whole or not at all, so there are no drafts. Documents are replaced by
conditional writes (If-Match, If-None-Match). Blocking; any thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from axonfs.errors import AccessDeniedError, AxonError, MalformedError, NotFoundError
from axonfs.s3 import Account, RefusedError, place_of, translating
from axonfs.storage.multipart import S3Upload
from axonfs.storage.parts import AT_ONCE
from axonfs.storage.storage import Content, Listed
from axonfs.units import size as shown_size

log = logging.getLogger(__name__)

PROBE = ".axonfs.probe"
_FOREVER, _REVALIDATED = "public, max-age=31536000, immutable", "no-cache"
_TYPES = {
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "yaml": "application/yaml",
}


class S3Storage:
    """The storage at an s3 URL.

    Args:
        ca_bundle: PEM file of the certificate authorities.
    """

    keeps_lists = False

    def __init__(self, url: str, ca_bundle: Path | None = None) -> None:
        self._place = place_of(url)
        self._account = Account(self._place, ca_bundle)
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="part")
        self._conditional = True

    def __repr__(self) -> str:
        return f"<S3Storage {self.name}>"

    @property
    def name(self) -> str:
        return self._place.url

    def prepare(self) -> None:
        """Find out whether the store has conditional writes.

        Raises:
            AxonError: the bucket does not exist, or this account may not write to it.
        """
        try:
            self._write(PROBE, b"", IfNoneMatch="*")
            self._write(PROBE, b"", IfNoneMatch="*")
        except RefusedError:
            return
        except AxonError as exc:
            if exc.status not in (400, 501):
                raise
            self._write(PROBE, b"")
        self._conditional = False
        log.warning(
            "%s has no conditional writes: let only one program publish at a time", self.name
        )

    def check_namespace(self, namespace: str) -> None:
        """Do nothing: who may write may write everything."""

    def size(self, key: str) -> int | None:
        try:
            return int(self._call("head_object", key)["ContentLength"])
        except NotFoundError:
            return None
        except AxonError as exc:
            # A proxy or a policy may allow GET alone; and only an answer to GET says why not.
            if exc.status not in (400, 403):
                raise
        found = self._get(key)
        if found is None:
            return None
        found["Body"].close()
        return int(found["ContentLength"])

    def read(self, key: str, limit: int) -> Content | None:
        found = self._get(key)
        if found is None:
            return None
        with contextlib.closing(found["Body"]) as body, self._translating(key):
            if int(found["ContentLength"]) > limit:
                what = f"the file has more than {shown_size(limit)}"
                raise MalformedError(what, source=self._url(key))
            return Content(body.read(), found["ETag"])

    def _get(self, key: str) -> dict[str, Any] | None:
        try:
            return self._call("get_object", key)
        except NotFoundError:
            return None
        except AccessDeniedError as exc:
            if exc.status == 403:  # without ListBucket that may mean "not found"
                return None
            raise

    def list(self, prefix: str) -> Iterator[Listed]:
        more: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", None, Prefix=self._key(prefix), **more)
            for item in page.get("Contents", ()):
                key = str(item["Key"]).removeprefix(self._place.prefix)
                if key != PROBE:
                    yield Listed(key, int(item["Size"]), item["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def now(self) -> float:
        page = self._call("list_objects_v2", None, Prefix=self._place.prefix, MaxKeys=1)
        date = page["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        try:
            return parsedate_to_datetime(date).timestamp()
        except ValueError:  # S3 sends a date with every answer; another store may not
            return time.time()

    @contextlib.contextmanager
    def upload(self, fd: int, sent: Callable[[int], object]) -> Iterator[S3Upload]:
        yield S3Upload(fd, self, self._threads, sent)

    def unfinished(self, key: str) -> Iterator[str]:
        with contextlib.suppress(AccessDeniedError):  # then interrupted uploads begin anew
            page = self._call("list_multipart_uploads", None, Prefix=self._key(key))
            for item in page.get("Uploads", ()):
                if item["Key"] == self._key(key):
                    yield str(item["UploadId"])

    def put(self, key: str, body: bytes) -> bool:
        return self.replace(key, body, None)

    def replace(self, key: str, body: bytes, before: Content | None) -> bool:
        if not self._conditional:
            return self._replaced_unconditionally(key, body, before)
        condition = {"IfMatch": before.etag} if before else {"IfNoneMatch": "*"}
        try:
            self._write(key, body, **condition)
        except NotFoundError:  # an answer to If-Match
            return False
        except RefusedError as exc:
            return exc.repeated and self._holds(key, body)
        return True

    def _holds(self, key: str, body: bytes) -> bool:
        found = self.read(key, len(body)) if self.size(key) == len(body) else None
        return found is not None and found.body == body

    def _replaced_unconditionally(self, key: str, body: bytes, before: Content | None) -> bool:
        size = self.size(key)
        if before is None and size is not None:
            return False
        if before and (size is None or self.read(key, size) != before):
            return False
        self._write(key, body)
        return True

    def delete(self, key: str) -> None:
        self._call("delete_object", key)

    def _write(self, key: str, body: bytes, **condition: str) -> None:
        # Given as a header: some stores know no checksums behind the body, which botocore prefers.
        sha256 = b64encode(hashlib.sha256(body).digest()).decode()
        self.request("put_object", key, Body=body, ChecksumSHA256=sha256, **condition)

    def request(self, operation: str, key: str, **arguments: Any) -> dict[str, Any]:
        """Make a request that writes a file, with the headers that go with the file.

        Raises:
            RefusedError: its condition does not hold.
        """
        if operation in ("put_object", "create_multipart_upload"):
            arguments |= _headers(key) | self._encryption()
        return self._call(operation, key, **arguments)

    def _call(self, operation: str, key: str | None, **arguments: Any) -> dict[str, Any]:
        """Make a request; if its credentials have expired, once more with those that AWS's settings
        have now."""
        client = self._account.client()
        try:
            return self._answer(client, operation, key, arguments)
        except AccessDeniedError as exc:
            if exc.status != 401:
                raise
            renewed = self._account.client()  # maybe by another thread
            if renewed is client and not self._account.renew():
                raise
        return self._answer(self._account.client(), operation, key, arguments)

    def _answer(
        self, client: Any, operation: str, key: str | None, arguments: dict[str, Any]
    ) -> dict[str, Any]:
        named = {"Bucket": self._place.bucket} | ({} if key is None else {"Key": self._key(key)})
        if self._place.request_payer:
            named["RequestPayer"] = self._place.request_payer
        with self._translating(key or ""):
            found: dict[str, Any] = getattr(client, operation)(**named, **arguments)
        return found

    def _translating(self, key: str) -> contextlib.AbstractContextManager[None]:
        return translating(self._url(key), anonymous=self._account.anonymous)

    def _key(self, key: str) -> str:
        return f"{self._place.prefix}{key}"

    def _url(self, key: str) -> str:
        return f"{self.name}/{key}".rstrip("/")

    def _encryption(self) -> dict[str, str]:
        given = {
            "ServerSideEncryption": self._place.sse,
            "SSEKMSKeyId": self._place.sse_kms_key_id,
        }
        return {name: text for name, text in given.items() if text}


def _headers(key: str) -> dict[str, str]:
    """What `axonfs registry serve` says of a file, so that a bucket may be served as it is."""
    if key.startswith(("objects/", "chunks/")):
        return {"ContentType": "application/octet-stream", "CacheControl": _FOREVER}
    kind = _TYPES.get(key.rpartition(".")[2], "application/octet-stream")
    return {"ContentType": kind, "CacheControl": _REVALIDATED}
