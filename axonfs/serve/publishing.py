"""What tokens may change in a registry, and how: uploads, manifests, yanks and removals.

Below handler.py, which speaks HTTP. Nothing that a client sends is trusted: an object gets its name
after the server has compared its bytes, a manifest is entered if every object and chunk table that
it names is there, and the server makes the lists itself. Blocking; any thread.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from axonfs.errors import (
    AxonError,
    BusyError,
    ChangedError,
    CorruptError,
    MalformedError,
    NoSpaceError,
    NotFoundError,
    UsageError,
)
from axonfs.formats.chunktable import decode_table, parse_table, table_bytes
from axonfs.formats.layout import (
    MODELS,
    SIGNATURES_NAME,
    YANKED_NAME,
    manifest_key,
    signatures_key,
    table_key,
    version_home,
    versions_key,
)
from axonfs.formats.listing import listing_json, listing_of
from axonfs.formats.manifest import (
    MANIFEST_NAME,
    MAX_SIZE,
    MIN_CHUNK_SIZE,
    FileEntry,
    Manifest,
    parse_manifest,
)
from axonfs.names import Spec, printable, spec_of
from axonfs.publish.registry import Registry
from axonfs.publish.signatures import checked
from axonfs.serve.refused import RefusedError
from axonfs.serve.tokens import Grant
from axonfs.serve.uploads import MAX_PART, MAX_PARTS, MIN_PART, Upload, Uploads
from axonfs.signatures import parse_signatures
from axonfs.storage import Content, Directory

log = logging.getLogger(__name__)

UPLOADS = "/api/v1/uploads"
PARSING = 2  # manifests that are parsed at a time; one may take a hundred times its size
MAX_LISTED = 16 << 10  # bytes of a version in the index, which all namespaces share
COMPARING = 2  # objects that are compared with their digests at a time
MAX_SETTLING = 100  # ends of uploads that are remembered; more if they are under way
PATIENCE = 10.0  # seconds; a client asks again for the end of an upload that takes longer
_UPLOAD = re.compile(
    rf"{UPLOADS}/([0-9a-f]{{64}})/([0-9]{{1,19}})/([0-9]{{1,19}})(?:/([0-9]{{1,9}}))?"
)
_STATUSES: tuple[tuple[type[AxonError], HTTPStatus], ...] = (
    (NoSpaceError, HTTPStatus.INSUFFICIENT_STORAGE),
    (BusyError, HTTPStatus.SERVICE_UNAVAILABLE),
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (MalformedError, HTTPStatus.BAD_REQUEST),
    (CorruptError, HTTPStatus.BAD_REQUEST),
    (ChangedError, HTTPStatus.BAD_REQUEST),
    (UsageError, HTTPStatus.FORBIDDEN),  # a name that nobody may use
)


@dataclass(frozen=True, slots=True)
class Change:
    """What a request changes: a version's file `name`, or an upload with perhaps a part of it."""

    spec: Spec | None = None
    name: str = ""
    upload: Upload | None = None
    part: int | None = None


def change_of(path: str) -> Change | None:
    """The change that a URL path names; None if no client may write there."""
    if match := _UPLOAD.fullmatch(path):
        upload = _checked(Upload(match[1], int(match[2]), int(match[3])))
        number = int(match[4]) if match[4] else None
        if number is not None and number >= upload.count:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "the object has no such part")
        return Change(upload=upload, part=number)
    home, _, name = path.rpartition("/")
    if home.startswith(f"/{MODELS}") and name in (MANIFEST_NAME, YANKED_NAME, SIGNATURES_NAME):
        spec = spec_of(tuple(home.removeprefix(f"/{MODELS}").split("/")))
        if spec and f"/{version_home(spec)}" == f"{home}/":
            return Change(spec=spec, name=name)
    return None


def _checked(upload: Upload) -> Upload:
    if upload.size > MAX_SIZE:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"an object has at most {MAX_SIZE:,} bytes")
    if not MIN_PART <= upload.part <= MAX_PART:
        what = f"a part has {MIN_PART:,} to {MAX_PART:,} bytes"
        raise RefusedError(HTTPStatus.BAD_REQUEST, what)
    if upload.count > MAX_PARTS:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"an object has at most {MAX_PARTS:,} parts")
    return upload


class Publishing:
    """Changes the registry in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._registry = Registry(Directory(directory))
        self._uploads = Uploads(directory, self._registry)
        self._comparing = ThreadPoolExecutor(COMPARING, thread_name_prefix="compare")
        self._settling: dict[tuple[str, Upload, bytes], Future[bool]] = {}
        self._settling_lock = threading.Lock()
        self._parsing = threading.Semaphore(PARSING)
        self._entering = threading.Lock()  # the lists are made by one thread at a time

    def expire(self) -> None:
        """Remove the unfinished uploads that nobody goes on with."""
        self._uploads.expire()

    def close(self) -> None:
        """Compare no more objects."""
        self._uploads.stopping = True
        self._comparing.shutdown(wait=False, cancel_futures=True)

    def parts(self, grant: Grant, upload: Upload) -> list[int]:
        """The parts of an upload that are there."""
        return self._uploads.parts(grant.name, upload)

    def receive(
        self, grant: Grant, upload: Upload, number: int, readinto: Callable[[memoryview], int]
    ) -> None:
        """Take a part of an upload."""
        with _faults():
            self._uploads.receive(grant.name, upload, number, readinto)

    def settle(self, grant: Grant, upload: Upload, raw: bytes) -> bool | None:
        """End an upload; `raw` is its chunk table. None: that is still under way.

        Returns:
            Whether this table is now the object's; it may have had another one before.
        """
        with _faults():
            table = decode_table(raw)
            key = (grant.name, upload, raw)
            with self._settling_lock:
                if (job := self._settling.get(key)) is None:
                    self._forget_ended()
                    job = self._comparing.submit(self._uploads.settle, grant.name, upload, table)
                    self._settling[key] = job
            try:
                return job.result(PATIENCE)
            except TimeoutError:
                return None
            finally:
                if job.done():
                    self._settling.pop(key, None)

    def _forget_ended(self) -> None:
        """Forget the ends of uploads that no client asked for again."""
        if len(self._settling) > MAX_SETTLING:
            jobs = list(self._settling.items())
            self._settling = {key: job for key, job in jobs if not job.done()}

    def enter(self, spec: Spec, raw: bytes) -> Manifest | None:
        """Publish a version, unless it is published already; return the earlier manifest then."""
        with _faults():
            self._registry.check_spec(spec)
            with self._parsing:
                manifest = parse_manifest(raw, spec)
            _check_listed(manifest)
            self._check_complete(manifest)
            with self._entering:
                earlier = self._registry.enter(manifest)
                self._registry.mend_lists(spec)
            return earlier

    def _check_complete(self, manifest: Manifest) -> None:
        for entry in manifest.files:
            try:
                self._check_entry(entry)
            except AxonError as exc:
                shown = printable(entry.path)
                raise RefusedError(HTTPStatus.CONFLICT, f"'{shown}': {exc.what}") from exc

    def _check_entry(self, entry: FileEntry) -> None:
        if entry.named or entry.git:
            raise MalformedError("the manifest has no sha256 of this file")
        if not self._registry.has_object(entry.digest, entry.size):
            raise NotFoundError("the registry does not have the object")
        if entry.size and entry.chunks:
            limit = table_bytes(entry.size, MIN_CHUNK_SIZE)
            found = self._registry.storage.read(table_key(entry.digest), limit)
            if found is None:
                raise NotFoundError("the registry does not have the chunk table")
            parse_table(found.body, size=entry.size, chunks=entry.chunks)

    def yank(self, spec: Spec, *, undo: bool = False) -> None:
        """Yank a version, or undo that."""
        with _faults(), self._entering:
            self._registry.yank(spec, undo=undo)

    def sign(self, spec: Spec, raw: bytes, before: Content | None) -> bool:
        """Replace the signatures of a version, which may not be published yet; return False if they
        are not `before`."""
        with _faults():
            self._registry.check_spec(spec)
            manifest = self._registry.manifest(spec)
            if manifest:
                checked(raw, manifest)
            else:
                parse_signatures(raw)
            return self._registry.storage.replace(signatures_key(spec), raw, before)

    def unsign(self, spec: Spec) -> None:
        """Remove the signatures of a version."""
        with _faults():
            self._registry.storage.delete(signatures_key(spec))

    def remove(self, spec: Spec) -> None:
        """Remove a version; do nothing if the registry knows no version of its model."""
        with _faults(), self._entering:
            known = (manifest_key(spec), versions_key(spec.model))
            if any(self._registry.storage.size(key) is not None for key in known):
                self._registry.remove(spec)


def _check_listed(manifest: Manifest) -> None:
    """
    Raises:
        MalformedError: the index would need too many bytes for this version.
    """
    listed = json.dumps(listing_json(listing_of(manifest)), ensure_ascii=False)
    if len(listed.encode()) > MAX_LISTED:
        what = f"description and tags have more than {MAX_LISTED:,} bytes in the index"
        raise MalformedError(what)


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    """Turn the faults of the registry into refusals. Paths of the server are for its log only."""
    try:
        yield
    except (ConnectionError, TimeoutError, ssl.SSLError):
        raise  # of the client, while it sends a body
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RefusedError(
                HTTPStatus.INSUFFICIENT_STORAGE, "the registry's disk is full"
            ) from exc
        log.error("cannot write to the registry: %s", exc)
        what = f"the server cannot write to the registry: {exc.strerror}"
        raise RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, what) from exc
    except AxonError as exc:
        found = (status for kind, status in _STATUSES if isinstance(exc, kind))
        status = next(found, HTTPStatus.CONFLICT)
        retry = 1 if status == HTTPStatus.SERVICE_UNAVAILABLE else None
        raise RefusedError(status, exc.what, retry_after=retry) from exc
