"""Signs the requests of http_client for s3 URLs, and reads what stores answer to them.

botocore makes the request, with the endpoint, the path style and the signature that its settings
ask for; it is taken just before it would be sent. The Range header is not part of the signature. So
all ranges of an object have one signature, which is kept for a few minutes. Blocking; any thread.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from axonfs.errors import UsageError
from axonfs.http_client import Answer, Signed, split_url
from axonfs.names import printable
from axonfs.s3.account import Account
from axonfs.s3.faults import ELSEWHERE, Refusal, translating
from axonfs.s3.place import Place, bucket_and_key, place_of

# Stores accept a signature for 15 minutes; botocore renews credentials as long before they expire.
KEPT_SECONDS = 300.0
KEPT = 4096
_SIGNED_HEADERS = re.compile(r"SignedHeaders=([^,\s]+)")


class S3Signer:
    """The signer of all s3 URLs of one process.

    Args:
        ca_bundle: PEM file of the certificate authorities.
    """

    def __init__(self, ca_bundle: Path | None = None) -> None:
        self._ca_bundle = ca_bundle
        self._places: dict[str, Place] = {}  # by URL without options, as `Place.url` writes it
        self._reaches: dict[Place, _Reach] = {}  # by a place without its prefix
        self._lock = threading.Lock()

    def learn(self, registries: Iterable[str]) -> None:
        """Use the options in these URLs for the files below them. Buckets that no registry names
        are reached by AWS's own settings.

        Raises:
            UsageError: two of them differ in their options alone, so they have the same name.
        """
        for place in (place_of(url) for url in registries if url.startswith("s3:")):
            if self._places.setdefault(place.url, place) != place:
                what = f"{printable(place.url)} is used with other options already"
                hint = "two registries need different buckets or prefixes"
                raise UsageError(what, hint=hint)

    def sign(self, url: str) -> Signed:
        return self._reach(url).sign(url)

    def refused(self, url: str, signed: Signed, answer: Answer, said: bytes) -> bool:
        return self._reach(url).refused(url, signed, answer, said)

    def _reach(self, url: str) -> _Reach:
        bucket, key = bucket_and_key(url)
        above = [
            place
            for place in list(self._places.values())
            if place.bucket == bucket and f"{key}/".startswith(place.prefix)
        ]
        place = max(above, key=lambda place: len(place.prefix), default=Place(bucket))
        way = replace(place, prefix="")
        with self._lock:
            if way not in self._reaches:
                self._reaches[way] = _Reach(way, self._ca_bundle)
            return self._reaches[way]


class _Reach:
    """A bucket, and the account that reaches it."""

    def __init__(self, place: Place, ca_bundle: Path | None) -> None:
        self._bucket = place.bucket
        self._account = Account(place, ca_bundle)
        self._payer = {"RequestPayer": place.request_payer} if place.request_payer else {}
        self._signed: dict[str, tuple[float, Signed]] = {}  # by key
        self._lock = threading.Lock()  # one thread renews
        self._tap = _Tap()
        self._exists = False  # whether the bucket is known to exist

    def sign(self, url: str) -> Signed:
        _, key = bucket_and_key(url)
        made, signed = self._signed.get(key, (float("-inf"), None))
        now = time.monotonic()
        if signed is None or now > made + KEPT_SECONDS:
            signed = self._made(key, url)
            if len(self._signed) >= KEPT:
                self._signed.clear()
            self._signed[key] = now, signed
        return signed

    def _made(self, key: str, url: str) -> Signed:
        client = self._account.tapped_client(self._tap)
        with translating(url, anonymous=self._account.anonymous):
            client.get_object(Bucket=self._bucket, Key=key, **self._payer)
        request, self._tap.request = self._tap.request, None
        return _signed(request)

    def refused(self, url: str, signed: Signed, answer: Answer, said: bytes) -> bool:
        refusal = Refusal.of_body(answer.status, answer.headers, said)
        if self._renewed(url, signed, refusal):
            return True
        if refusal.absent:
            self._check_bucket(url)
        if error := refusal.error(url, anonymous=self._account.anonymous):
            raise error
        return False

    def _renewed(self, url: str, signed: Signed, refusal: Refusal) -> bool:
        """Whether there is another signature now: by this call, or since `signed` was made."""
        moved = refusal.code in ELSEWHERE and bool(refusal.region)
        if not (moved or refusal.denied):
            return False
        with self._lock:
            _, current = self._signed.get(bucket_and_key(url)[1], (0.0, None))
            if current is signed and not self._account.renew(refusal.region if moved else None):
                return False
            self._signed.clear()
            return True

    def _check_bucket(self, url: str) -> None:
        """Some stores say of a bucket that does not exist that the file does not exist."""
        if self._exists:
            return
        with translating(url, anonymous=self._account.anonymous, bucket=True):
            self._account.client().head_bucket(Bucket=self._bucket)
        self._exists = True


class _Tap(threading.local):
    """Takes the request that botocore is about to send, and answers in the store's place."""

    request: Any = None

    def __call__(self, request: Any, **_: object) -> Any:
        from botocore.awsrequest import AWSResponse

        self.request = request
        return AWSResponse(request.url, 200, {}, None)


def _signed(request: Any) -> Signed:
    """The URL, and those headers of the request that are its signature or belong to it."""
    headers = {name: _text(value) for name, value in request.headers.items()}
    match = _SIGNED_HEADERS.search(headers.get("Authorization", ""))
    names = {"authorization", *(match.group(1).split(";") if match else ())} - {"host"}
    kept = {name: value for name, value in headers.items() if name.lower() in names}
    return Signed(split_url(request.url), kept)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
