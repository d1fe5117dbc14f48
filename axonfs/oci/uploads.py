"""Writing to a repository of an OCI registry: blobs, in pieces where they are large, and manifests.

A registry shows a blob once it has compared its digest, and accepts a manifest only after its
blobs. The upload of a large blob continues where it was interrupted: the registry keeps what came,
and a small file on this machine keeps the URL of the upload. Blocking; any thread.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from axonfs.errors import AxonError, UnavailableError
from axonfs.http_client import Calls, Ends, Limits, Said, Trust, shown, split_url
from axonfs.http_client.urls import follow, target_of
from axonfs.oci.faults import refusal
from axonfs.oci.manifest import kind_of
from axonfs.oci.signer import ACCEPT
from axonfs.oci.tokens import Host
from axonfs.oci.unfinished import Unfinished

T = TypeVar("T")

PIECE = 64 << 20  # of a large blob, in one request
BUFFER = 1 << 20
SLOWEST = 32 << 20  # bytes that a registry handles in a second when it ends an upload
ATTEMPTS = 5
TRIES = 3  # of one request, with other log-ins
BEGINNINGS = 10  # of the upload of one blob, which a registry may end
# Answers by which registries say that they take no blob in pieces.
_NO_PIECES = frozenset({400, 404, 405, 411, 415, 416, 501})
# Answers by which registries say that an upload has ended, or stands elsewhere.
_LOST = frozenset({400, 404, 410, 416})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Storage behind a registry may refuse HEAD. Then the blob is sent.
_UNKNOWN = frozenset({404, 405, 501})
# Nothing else: a web page that a proxy answers with has 200.
_BEGUN, _TAKEN_IN, _CREATED = frozenset({202}), frozenset({201, 202, 204}), frozenset({201})
_TAKEN = re.compile(r"(?:bytes=)?0-(\d{1,19})")
_OCTETS = {"Content-Type": "application/octet-stream"}

Sent = Callable[[int], object]


def connected(limits: Limits, trust: Trust) -> Calls:
    """The client for writes, whose answers are short."""
    return Calls(limits, trust, ends=Ends(answer=limits.deadline))


class Part:
    """The bytes `[start, stop)` of an open file, which may be sent more than once.

    Args:
        sent: called with the length of each piece that goes out, and with a negative number for
            what has to be sent again. An exception from it ends the upload.
    """

    def __init__(self, file: int, start: int, stop: int, sent: Sent) -> None:
        self.start = start
        self.stop = stop
        self._file = file
        self._sent = sent
        self._counted = 0

    def __len__(self) -> int:
        return self.stop - self.start

    def pieces(self) -> Iterator[bytes]:
        """
        Raises:
            AxonError: the file is shorter now.
        """
        self.take_back()
        at = self.start
        while at < self.stop:
            piece = os.pread(self._file, min(BUFFER, self.stop - at), at)
            if not piece:
                hint = "publish again once nothing writes to it"
                raise AxonError("the file changed while it was read", hint=hint)
            yield piece
            at += len(piece)
            self._counted += len(piece)
            self._sent(len(piece))

    def take_back(self) -> None:
        """Count nothing of this part as sent."""
        counted, self._counted = self._counted, 0
        self._sent(-counted)


@dataclass(slots=True)
class _Upload:
    """An upload in pieces: its next URL, and how much the registry has, if that is certain."""

    url: str
    at: int = 0
    certain: bool = True
    beginnings: int = 1


class _NoPiecesError(AxonError):
    """The registry takes blobs as a whole only."""


class Repository:
    """One repository, as a publisher sees it."""

    def __init__(self, host: Host, name: str, calls: Calls) -> None:
        self._host = host
        self._calls = calls
        self._limits = Limits()
        self._root = f"{host.root}/v2/{name}"
        self._scope = f"repository:{name}:pull,push"

    def __repr__(self) -> str:
        return f"<Repository {self._root}>"

    def has_blob(self, digest: str, size: int) -> bool:
        """Whether the registry has a blob of this digest and size."""
        url, expected = f"{self._root}/blobs/sha256:{digest}", _REDIRECTS | _UNKNOWN | {200}
        said = self._retried(lambda: self._ask("HEAD", url, expected, "a question for a blob"))
        if said.answer.status == 200:
            return said.answer.headers.get("content-length") == str(size)
        return said.answer.status in _REDIRECTS  # to the storage that has it

    def manifest(self, reference: str) -> bytes | None:
        """The manifest of a tag or digest; None if it or the repository does not exist."""
        url, expected = f"{self._root}/manifests/{reference}", frozenset({200, 404})
        headers = {"Accept": ACCEPT}
        said = self._retried(lambda: self._ask("GET", url, expected, "a manifest", headers))
        return said.body if said.answer.status == 200 else None

    def put_manifest(self, reference: str, raw: bytes) -> bool:
        """Store a manifest, whose blobs the registry has, or an index, under a tag or its digest;
        return whether the registry lists it with what refers to its subject."""
        url, headers = f"{self._root}/manifests/{reference}", {"Content-Type": kind_of(raw)}

        def put() -> Said:
            try:
                return self._ask("PUT", url, _CREATED, "the manifest", headers, raw)
            except AxonError as exc:
                # So says Docker's registry while another client stores the same manifest.
                exc.transient |= "DIGEST_INVALID" in exc.what
                raise

        return "oci-subject" in self._retried(put).answer.headers

    def put_bytes(self, digest: str, body: bytes) -> None:
        """Store a small blob."""
        self._retried(lambda: self._put_whole(digest, body))

    def mount(self, digest: str, repository: str) -> bool:
        """Take a blob from another repository of the same registry; return whether the registry
        did that. It may not know the blob there, or this user may not read it."""
        url = f"{self._root}/blobs/uploads/?mount=sha256:{digest}&from={repository}"
        scope, what = f"{self._scope} repository:{repository}:pull", "a mount of a blob"
        ask = partial(self._ask, "POST", url, _CREATED | _BEGUN, what, scope=scope)
        try:
            return self._retried(ask).answer.status in _CREATED
        except AxonError as exc:
            if exc.transient:
                raise
            return False

    def put_blob(self, digest: str, size: int, file: int, sent: Sent) -> None:
        """Store the bytes of the open file `file`.

        Args:
            sent: as for `Part`; it also gets what the registry has of an interrupted upload.

        Raises:
            AxonError: the registry refuses, or the file has other bytes by now.
        """
        if size > PIECE:
            with suppress(_NoPiecesError):
                self._put_pieces(digest, size, file, sent)
                return
        self._retried(lambda: self._put_whole(digest, Part(file, 0, size, sent)))

    def _put_whole(self, digest: str, content: Part | bytes) -> None:
        url = _with_digest(self._began().url, digest)
        try:
            wait = self._wait(len(content))
            self._ask("PUT", url, _CREATED, "a blob", _OCTETS, content, wait=wait)
        except AxonError:
            if isinstance(content, Part):
                content.take_back()
            raise

    def _put_pieces(self, digest: str, size: int, file: int, sent: Sent) -> None:
        with Unfinished(self._root, digest) as unfinished:
            upload = self._continued(unfinished.url(), size) or self._retried(self._began)
            sent(upload.at)
            while upload.at < size:
                unfinished.keep(upload.url)
                self._retried(lambda: self._put_piece(upload, size, file, sent))
            unfinished.keep(upload.url)
            try:
                self._end(upload.url, digest, size)
            except AxonError as exc:
                if not exc.transient:  # all of it has to be sent again
                    unfinished.forget()
                raise
            unfinished.forget()

    def _end(self, url: str, digest: str, size: int) -> None:
        url, wait, what = _with_digest(url, digest), self._wait(size), "the end of a blob"
        try:
            self._retried(lambda: self._ask("PUT", url, _CREATED, what, _OCTETS, wait=wait))
        except AxonError as exc:
            # The answer to an earlier attempt may have been lost.
            if exc.status not in _LOST or not self.has_blob(digest, size):
                raise

    def _wait(self, size: int) -> float:
        """How long the end of an upload may take: the registry may read all of it again, or copy it
        within its storage."""
        return self._limits.stall + size / SLOWEST

    def _continued(self, url: str | None, size: int) -> _Upload | None:
        """The upload of an earlier publisher; None if it has to begin anew."""
        try:
            return self._resumable(url, size) if url else None
        except AxonError:
            return None

    def _put_piece(self, upload: _Upload, size: int, file: int, sent: Sent) -> None:
        """Send the next piece."""
        if not upload.certain:
            found = self._resumable(upload.url, size) or self._begun_again(upload)
            sent(found.at - upload.at)
            upload.url, upload.at, upload.certain = found.url, found.at, True
        part = Part(file, upload.at, min(upload.at + PIECE, size), sent)
        headers = {**_OCTETS, "Content-Range": f"{part.start}-{part.stop - 1}"}
        upload.certain = False
        try:
            said = self._ask("PATCH", upload.url, _TAKEN_IN, "a piece of a blob", headers, part)
        except AxonError as exc:
            part.take_back()
            if exc.status in _NO_PIECES and part.start == 0:
                raise _NoPiecesError("the registry takes no pieces") from exc
            exc.transient |= exc.status in _LOST
            raise
        upload.url, upload.at, upload.certain = _location(said), part.stop, True

    def _resumable(self, url: str, size: int) -> _Upload | None:
        """What the registry has of an upload; None if it has ended that upload.

        Docker's registry ends an upload that was interrupted within a piece.
        """
        expected = frozenset({200, 202, 204, 400, 404, 410, 416})
        said = self._ask("GET", url, expected, "a question for an upload")
        if said.answer.status >= 400:
            return None
        match = _TAKEN.fullmatch(said.answer.headers.get("range", ""))
        last = int(match.group(1)) if match else 0
        # Registries say 0-0 of an upload without a byte, too; nothing here sends a single byte.
        found = _Upload(_location(said, url), last + 1 if last else 0)
        return found if found.at <= size else None

    def _begun_again(self, upload: _Upload) -> _Upload:
        if upload.beginnings >= BEGINNINGS:
            what = f"the registry ended the upload of a blob {BEGINNINGS} times"
            raise UnavailableError(what, source=shown(self._root), hint="publish again later")
        upload.beginnings += 1
        return self._began()

    def _began(self) -> _Upload:
        url = f"{self._root}/blobs/uploads/"
        return _Upload(_location(self._ask("POST", url, _BEGUN, "the beginning of an upload")))

    def _retried(self, call: Callable[[], T]) -> T:
        """The result of `call`, which is called again after a transient fault."""
        for attempt in range(1, ATTEMPTS):
            try:
                return call()
            except AxonError as exc:
                if not exc.transient:
                    raise
                time.sleep(self._limits.pause(attempt, exc.retry_after))
        try:
            return call()
        except AxonError as exc:
            exc.hint = exc.hint or "check the URL, and that the registry is running"
            raise

    def _ask(
        self,
        method: str,
        url: str,
        expected: frozenset[int],
        what: str,
        headers: Mapping[str, str] | None = None,
        content: Part | bytes = b"",
        scope: str = "",
        wait: float | None = None,
    ) -> Said:
        """The answer to one request, with the log-in that the registry asks for.

        Raises:
            AxonError: the answer's status is not `expected`.
        """
        target, scope = target_of(url), scope or self._scope
        ours = target.origin == split_url(self._root).origin
        for _ in range(TRIES):
            used = self._host.authorization(scope) if ours else None
            sent = {**(headers or {}), **({"Authorization": used} if used else {})}
            body = content if isinstance(content, bytes) else content.pieces()
            said = self._calls.send(method, target, sent, body, len(content), wait=wait)
            answer = said.answer
            if answer.status in expected:
                return said
            if answer.status == 403 and ours:
                raise self._host.denied(scope, answer, said.body)
            if answer.status != 401 or not ours:
                raise refusal(answer, said.body, what)
            self._host.refused(scope, used, answer, said.body)
        raise self._host.denied(scope, answer, said.body)


def _location(said: Said, before: str = "") -> str:
    """The URL of an upload from now on."""
    found = said.answer.headers.get("location")
    if before and not found:
        return before
    if not found:
        what = "the registry names no URL for an upload"
        raise UnavailableError(what, source=shown(said.answer.url))
    try:
        return str(follow(split_url(said.answer.url), found))
    except AxonError as exc:
        what = f"the registry names no usable URL for an upload: {exc.what}"
        hint = "behind a proxy a registry needs X-Forwarded-Proto, or a setting with its own URL"
        raise UnavailableError(what, source=exc.source, hint=hint) from exc


def _with_digest(url: str, digest: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}digest=sha256:{digest}"
