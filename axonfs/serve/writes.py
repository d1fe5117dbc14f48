"""The requests of those who publish, in addition to those of readers.

    GET     /api/v1/uploads                           what the token may do here
    GET     /api/v1/uploads/<digest>/<size>/<part>    the parts of an upload that are there
    PUT     /api/v1/uploads/<digest>/<size>/<part>/N  part N of an object, of <part> bytes
    POST    /api/v1/uploads/<digest>/<size>/<part>    the end of an upload; the body is the chunk
                                                      table; 202 means: ask again
    PUT     …/<version>/manifest.yaml                 publishes a version; 412 if it is published
                                                      with another manifest, 204 with the same
    DELETE  …/<version>/manifest.yaml                 removes it
    PUT     …/<version>/signatures.jsonl              replaces its signatures, with If-Match, or
                                                      If-None-Match: * if it has none
    DELETE  …/<version>/signatures.jsonl              removes them
    PUT, DELETE  …/<version>/yanked                   yanks it, and undoes that

Every one may be repeated. The connection's thread answers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from http import HTTPStatus
from urllib.parse import unquote

from axonfs.errors import UnavailableError
from axonfs.formats.chunktable import table_bytes
from axonfs.formats.layout import YANKED_NAME, signatures_key
from axonfs.formats.manifest import MAX_CHUNKS, MAX_MANIFEST_BYTES, MIN_CHUNK_SIZE
from axonfs.names import Spec
from axonfs.serve.handler import ABSOLUTE, RegistryHandler
from axonfs.serve.publishing import UPLOADS, change_of
from axonfs.serve.refused import RefusedError
from axonfs.serve.uploads import Upload
from axonfs.signatures.bundles import MAX_BYTES
from axonfs.storage import Content

MAX_TABLE = table_bytes(MAX_CHUNKS, 1)
WORK_SECONDS = 300.0  # more for an answer that waits for other publishers
LINGER_SECONDS, LINGER_BYTES = 2.0, 64 << 20
_JSON = "application/json"


class WritingHandler(RegistryHandler):
    """Answers the requests of one connection."""

    def handle_expect_100(self) -> bool:
        """Leave the client waiting until it is known whether its body is wanted."""
        self._expects = True
        return True

    def parse_request(self) -> bool:
        """Read the head of a request, and how much of its body is left to read."""
        self._expects = self._begun = False
        if not super().parse_request():
            return False
        length = self.headers.get("Content-Length", "0")
        self._left = int(length) if re.fullmatch("[0-9]{1,18}", length) else LINGER_BYTES
        if "Transfer-Encoding" in self.headers:
            self._left = LINGER_BYTES
        return True

    def _answer_path(self, path: str, query: str) -> None:
        if path == UPLOADS or path.startswith(f"{UPLOADS}/"):
            self._carry_out(path)
        else:
            super()._answer_path(path, query)

    def do_PUT(self) -> None:  # noqa: N802 - the base class looks for this name
        self._carry_out(unquote(ABSOLUTE.sub("", self.path.partition("?")[0]), errors="replace"))

    do_POST = do_DELETE = do_PUT  # noqa: N815

    def _carry_out(self, path: str) -> None:
        """Do what a request asks for; answer if it is refused."""
        try:
            if not self.server.access.writable:
                self._refuse_all()
            elif self._admitted(writes=True):
                self._check_length()
                self._route(path)
        except UnavailableError as exc:  # a file of the registry cannot be read now
            self._refuse_with(RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, exc.what, retry_after=1))
        except RefusedError as exc:
            self._refuse_with(exc)
        if self.close_connection:
            self._linger()

    def _refuse_with(self, exc: RefusedError) -> None:
        self._settle_connection()
        more = {} if exc.retry_after is None else {"Retry-After": str(exc.retry_after)}
        body = f"{exc.status.value} {exc.what}\n".encode()
        self.answer(exc.status, body, more=more)

    def _refuse_all(self) -> None:
        if self.command in ("GET", "HEAD"):
            self.answer(HTTPStatus.NOT_FOUND, b"404 this server takes no uploads\n")
        else:
            self.refuse()

    def _check_length(self) -> None:
        """
        Raises:
            RefusedError: the request does not say how long its body is.
        """
        lengths = self.headers.get_all("Content-Length", [] if self.command == "PUT" else ["0"])
        valid = len(lengths) == 1 and lengths[0] == str(self._left)
        if not valid or "Transfer-Encoding" in self.headers:
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "a Content-Length is needed")

    def _settle_connection(self) -> None:
        """Keep the connection if the body was read, so that the next request can follow."""
        if not self._left:
            self.close_connection = not self.reusable

    def _route(self, path: str) -> None:
        if path == UPLOADS and self.command in ("GET", "HEAD"):
            self._answer_account()
            return
        change = change_of(path)
        if change is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "nothing can be written there")
        if change.upload:
            self._change_upload(change.upload, change.part)
        elif change.spec:
            self._change_version(change.spec, change.name)

    def _answer_account(self) -> None:
        rights = {right: sorted(getattr(self._grant, right)) for right in ("publish", "remove")}
        self._answer_json({"token": self._grant.name, **rights})

    def _answer_json(self, document: object) -> None:
        self.answer(HTTPStatus.OK, json.dumps(document).encode(), _JSON)

    def _change_upload(self, upload: Upload, part: int | None) -> None:
        if not self._grant.publish:
            raise RefusedError(HTTPStatus.FORBIDDEN, f"{self._who} may not publish")
        publishing = self.server.publishing
        match self.command, part:
            case "GET" | "HEAD", None:
                self._answer_json({"parts": publishing.parts(self._grant, upload)})
            case "PUT", int(number):
                if self._left != upload.range(number).size:
                    raise RefusedError(HTTPStatus.BAD_REQUEST, "the part has another length")
                publishing.receive(self._grant, upload, number, self._readinto)
                self._done(HTTPStatus.NO_CONTENT)
            case "POST", None:
                raw = self._body(min(table_bytes(upload.size, MIN_CHUNK_SIZE), MAX_TABLE))
                kept = publishing.settle(self._grant, upload, raw)
                if kept:
                    self.server.counts.changed("object uploaded")
                statuses = {True: HTTPStatus.CREATED, False: HTTPStatus.OK}
                self._done(HTTPStatus.ACCEPTED if kept is None else statuses[kept])
            case _:
                self._refuse_method()

    def _change_version(self, spec: Spec, name: str) -> None:
        removes = self.command == "DELETE" and name != YANKED_NAME
        right, what = ("remove", "remove versions from") if removes else ("publish", "publish into")
        if not self._grant.may(right, spec.namespace):
            said = f"{self._who} may not {what} {spec.namespace}"
            raise RefusedError(HTTPStatus.FORBIDDEN, said)
        match self.command, name:
            case "PUT", "manifest.yaml":
                self._enter(spec)
            case "PUT", "signatures.jsonl":
                self._sign(spec)
            case "DELETE", "manifest.yaml":
                self.server.publishing.remove(spec)
                self.server.counts.changed("version removed")
                self._done(HTTPStatus.NO_CONTENT)
            case "DELETE", "signatures.jsonl":
                self.server.publishing.unsign(spec)
                self._done(HTTPStatus.NO_CONTENT)
            case "PUT" | "DELETE", "yanked":
                self._body(0)
                self.server.publishing.yank(spec, undo=self.command == "DELETE")
                self._done(HTTPStatus.NO_CONTENT)
            case _:
                self._refuse_method()

    def _enter(self, spec: Spec) -> None:
        raw = self._body(MAX_MANIFEST_BYTES)
        earlier = self.server.publishing.enter(spec, raw)
        if earlier is None:
            self.server.counts.changed("version published")
            self._done(HTTPStatus.CREATED)
        else:
            same = earlier.raw == raw
            self._done(HTTPStatus.NO_CONTENT if same else HTTPStatus.PRECONDITION_FAILED)

    def _sign(self, spec: Spec) -> None:
        raw, before = self._body(MAX_BYTES), None
        if "If-None-Match" not in self.headers:
            with self.server.resources.open(f"/{signatures_key(spec)}") as resource:
                if resource is None or self.headers.get("If-Match") != resource.etag:
                    self._done(HTTPStatus.PRECONDITION_FAILED)
                    return
                body = resource.file.read()
                before = Content(body, hashlib.sha256(body).hexdigest())
        signed = self.server.publishing.sign(spec, raw, before)
        if signed:
            self.server.counts.changed("version signed")
        self._done(HTTPStatus.CREATED if signed else HTTPStatus.PRECONDITION_FAILED)

    def _refuse_method(self) -> None:
        raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, f"{self.command} means nothing here")

    def _body(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            RefusedError: it has more than `limit` bytes.
        """
        if self._left > limit:
            what = f"the body has more than {limit:,} bytes"
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, what)
        body = bytearray(self._left)
        view = memoryview(body)
        while view:
            view = view[self._readinto(view) :]
        # What follows may have to wait for other publishers.
        self.server.connections.answer(self.connection, seconds=WORK_SECONDS)
        return bytes(body)

    def _readinto(self, view: memoryview) -> int:
        """Read the next bytes of the body.

        Raises:
            ConnectionError: the client is gone.
        """
        if self._expects:
            self._expects = False
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
            self._status = 0
        if not self._begun:  # once: a body that trickles must not start its deadline anew
            self._begun = True
            self.server.connections.answer(self.connection, self._left)
        count = self.rfile.readinto1(view[: self._left])
        if not count:
            raise ConnectionResetError("the body ended early")
        self._left -= count
        self._received += count
        return count

    def _done(self, status: HTTPStatus) -> None:
        self._settle_connection()
        if status == HTTPStatus.NO_CONTENT:
            self.send_response(status)
            self.end_headers()
        else:
            self.answer(status, f"{status.value} {status.phrase.lower()}\n".encode())

    def _linger(self) -> None:
        """Read the rest of a body that is not wanted: closing at once could lose the answer."""
        until, left = time.monotonic() + LINGER_SECONDS, min(self._left, LINGER_BYTES)
        if self._expects or not left:
            return
        with contextlib.suppress(OSError):
            self.connection.settimeout(LINGER_SECONDS)
            while left > 0 and time.monotonic() < until and (piece := self.rfile.read1(left)):
                left -= len(piece)
