"""`publish` into an OCI registry: the layers, the config, and the manifest under its tag, last.

Beside publisher.py, for registries of files. A layer is one file as it is. So a registry that has a
file does not get it again, and every client for OCI artifacts can pull the model. Blocking.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from axonfs.errors import AxonError, MalformedError, UnsupportedError, naming
from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.manifest import DEFAULT_CHUNK_SIZE, ChunkRef
from axonfs.http_client import Limits, Trust
from axonfs.names import printable
from axonfs.oci import Reference
from axonfs.oci.artifacts import new_artifact, put_artifact, put_document
from axonfs.oci.config import About
from axonfs.oci.credentials import given_for
from axonfs.oci.manifest import Descriptor, Model, digest_of, parse
from axonfs.oci.packing import PackedFile, packed, same_files, same_sizes
from axonfs.oci.referrers import TABLE
from axonfs.oci.tokens import Host
from axonfs.oci.uploads import Repository, connected
from axonfs.publish.copying import BUFFER_BYTES, Digests, Sent, opened
from axonfs.publish.metadata import MAX_DESCRIBING_BYTES, describe
from axonfs.publish.scan import Scan, SourceFile, scan
from axonfs.publish.together import PublishProgress, Together

log = logging.getLogger(__name__)

DESCRIBING = ("README.md", "config.json")


@dataclass(frozen=True, slots=True)
class Pushed:
    """The result of `publish_oci`.

    Args:
        digest: the sha256 of the manifest.
        new_bytes: how much was sent.
        already: whether the tag named these files before.
        left_out: paths below the directory that are not part of the model.
    """

    reference: str
    digest: str
    files: int
    bytes: int
    new_bytes: int
    already: bool
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Stored:
    file: PackedFile
    new_bytes: int
    content: bytes  # of a small file that describes the model
    table: ChunkTable


def publish_oci(
    directory: Path,
    reference: Reference,
    *,
    description: str | None = None,
    license: str | None = None,  # noqa: A002 - as the manifest and the option call it
    framework: str | None = None,
    move: bool = False,
    tokens: Mapping[str, str] | None = None,
    ca_bundle: Path | None = None,
    progress: Callable[[PublishProgress], None] | None = None,
) -> Pushed:
    """Publish the files below `directory` under a tag of an OCI registry.

    To finish a publish that died, run it again.

    Args:
        description, license, framework: by default from README.md and config.json.
        move: whether the tag may have named other files before.
        tokens: `user:password` by the URL of a registry; replace docker's log-ins.
        ca_bundle: PEM file of the certificate authorities.
        progress: as for `publish`.

    Raises:
        AxonError: the directory has no files, a file cannot be read, the tag names other files, or
            the registry refuses.
    """
    found = scan(directory)
    given = {"description": description, "license": license, "framework": framework}
    with _target(reference, tokens or {}, ca_bundle) as target:
        before = _tagged(target, reference.tag)
        if before and not move:  # before anything is sent
            _refuse(same_sizes(before.model, {file.path: file.size for file in found.files}))
        stored = _stored(target, found, progress)
        files = [item.file for item in stored]
        before = _tagged(target, reference.tag)  # another publisher may have been faster
        changed = same_files(before.model, files) if before else None
        if before and not move:
            _refuse(changed)
        tables = {item.table.ref: item.table for item in stored if item.file.chunks}
        if before and changed is None:
            digest = before.digest
            named = [tables[ref] for ref in before.chunks if ref in tables]
            sent = _put_tables(target, before.raw, named)  # it may have lost them
        else:
            about = _described(stored, given)
            digest, sent = _enter(target, reference, files, list(tables.values()), about)
    return Pushed(
        str(reference),
        digest,
        len(files),
        found.size,
        sent + sum(item.new_bytes for item in stored),
        before is not None and changed is None,
        tuple(found.left_out),
    )


def _refuse(changed: str | None) -> None:
    """
    Raises:
        AxonError: a file differs from the tag's.
    """
    if changed is not None:
        what = f"the tag names other files ('{printable(changed)}' differs)"
        raise AxonError(what, hint="choose another tag, or let this one move: --move-tag")


@contextlib.contextmanager
def _target(
    reference: Reference, tokens: Mapping[str, str], ca_bundle: Path | None
) -> Iterator[Repository]:
    """The repository; faults name the reference."""
    trust, place = Trust(ca_bundle), reference.place
    given = given_for(place.host, tokens)
    host = Host(place.host, trust, plain_http=place.plain_http, given=given)
    with naming(source=str(reference)), connected(Limits(), trust) as calls:
        yield Repository(host, reference.repository, calls)


@dataclass(frozen=True, slots=True)
class _Tagged:
    """What a tag names."""

    raw: bytes
    model: Model

    @property
    def digest(self) -> str:
        return digest_of(self.raw)

    @property
    def chunks(self) -> list[ChunkRef]:
        """What its layers say of chunk tables, each once and in their order."""
        return [*dict.fromkeys(layer.chunks for layer in self.model.layers if layer.chunks)]


def _tagged(target: Repository, tag: str) -> _Tagged | None:
    """What the tag names now; None if it does not exist.

    Raises:
        AxonError: it names something that is no model.
    """
    raw = target.manifest(tag)
    if raw is None:
        return None
    try:
        found = parse(raw)
    except MalformedError as exc:
        what = f"what the tag names is no model: {exc.what}"
        raise AxonError(what, hint=exc.hint or _OTHER_TAG) from exc
    if isinstance(found, str):
        raise AxonError("the tag names an index of manifests", hint=_OTHER_TAG)
    return _Tagged(raw, found)


_OTHER_TAG = "choose another tag"


def _stored(
    target: Repository, found: Scan, progress: Callable[[PublishProgress], None] | None
) -> list[_Stored]:
    """Store every file that the registry does not have."""
    together, turns = Together(found.files, progress), dict[str, threading.Lock]()
    return together.run(lambda file: _store(target, file, turns, together.moved))


def _store(
    target: Repository,
    file: SourceFile,
    turns: dict[str, threading.Lock],
    moved: Callable[[str, int], None],
) -> _Stored:
    """Store one file. Of files with the same bytes the others wait for their turn, and find them
    there."""
    fd = opened(file)
    try:
        status, sent = os.fstat(fd), Sent(file.path, moved)
        digest, table, content = _digests(file, fd, sent)
        with turns.setdefault(digest, threading.Lock()):
            new = not target.has_blob(digest, status.st_size)
            if new:
                target.put_blob(digest, status.st_size, fd, sent)
        sent(status.st_size - sent.count)
    finally:
        os.close(fd)
    executable = bool(status.st_mode & 0o100)
    # The digest of a file of one chunk is all that its table says.
    chunks = table.ref if table.count > 1 else None
    made = PackedFile(file.path, table.size, digest, executable, status.st_mtime, chunks)
    return _Stored(made, table.size if new else 0, content, table)


def _digests(file: SourceFile, fd: int, sent: Sent) -> tuple[str, ChunkTable, bytes]:
    """The sha256 and the chunk table of a file, and its bytes if they describe the model."""
    digests, size = Digests(DEFAULT_CHUNK_SIZE), os.fstat(fd).st_size
    describes = file.path in DESCRIBING and size <= MAX_DESCRIBING_BYTES
    content = bytearray()
    while piece := os.pread(fd, min(BUFFER_BYTES, digests.room), digests.size):
        digests.add(memoryview(piece))
        content += piece if describes else b""
        sent(0)  # raises if the publish was stopped
    if digests.size != size:
        what = f"'{printable(file.path)}' changed while it was read"
        raise AxonError(what, hint="publish again once nothing writes to it")
    return *digests.finish(), bytes(content)


def _described(stored: Sequence[_Stored], given: Mapping[str, str | None]) -> About:
    content = {item.file.path: item.content for item in stored}
    readme, config = (content.get(name, b"") for name in DESCRIBING)
    own = describe(content, readme, config)
    told = {key: getattr(own, key) if text is None else text for key, text in given.items()}
    return About(**told, format=own.format, created=time.time())


def _enter(
    target: Repository,
    reference: Reference,
    files: Sequence[PackedFile],
    tables: Sequence[ChunkTable],
    about: About,
) -> tuple[str, int]:
    """Store the config, the chunk tables, and then the manifest; return its digest, and how much
    was sent."""
    blob, config, raw = packed(reference.repository.rpartition("/")[2], about, files)
    put_document(target, blob.digest, config)
    sent = _put_tables(target, raw, tables)
    target.put_manifest(reference.tag, raw)
    return digest_of(raw), len(config) + len(raw) + sent


def _put_tables(target: Repository, raw: bytes, tables: Sequence[ChunkTable]) -> int:
    """Store the chunk tables of the model with the manifest `raw`, as an artifact that refers to
    it; return how much of them was sent. A registry that refuses them has the model without.

    Raises:
        AxonError: the registry does not answer, or fails for now.
    """
    bodies = {table.ref.digest: table.encode() for table in tables}
    layers = [Descriptor(TABLE, digest, len(body)) for digest, body in bodies.items()]
    if not layers:
        return 0
    sent = 0
    try:
        for digest, body in bodies.items():
            sent += put_document(target, digest, body)
        put_artifact(target, new_artifact(raw, {}, layers))
    except AxonError as exc:
        if exc.transient or (exc.status is None and not isinstance(exc, UnsupportedError)):
            raise
        log.warning("the registry keeps no chunk tables, so reads are slower: %s", exc)
    return sent
