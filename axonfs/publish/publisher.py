"""`publish`: scan the directory, copy the files, make the manifest, enter it into the registry.

Only this module knows the order of the steps. Blocking; it starts a few threads for the copies.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from axonfs.errors import AxonError, MalformedError
from axonfs.formats.manifest import (
    DEFAULT_CHUNK_SIZE,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    FileEntry,
    Manifest,
    check_chunk_size,
    parse_manifest,
    render_manifest,
)
from axonfs.names import Spec, printable
from axonfs.publish.copying import Copier, Stored
from axonfs.publish.faults import disk_faults
from axonfs.publish.metadata import MAX_DESCRIBING_BYTES, Description, describe
from axonfs.publish.registry import Registry
from axonfs.publish.scan import Scan, SourceFile, scan
from axonfs.publish.signatures import drop_others, sign
from axonfs.publish.together import PublishProgress, Together
from axonfs.storage import Directory, Storage

if TYPE_CHECKING:
    from axonfs.signatures.signing import Signer


@dataclass(frozen=True, slots=True)
class Published:
    """The result of a publish.

    Args:
        new_bytes: how much the registry's objects grew.
        already: whether the version was published before, with the same files.
        left_out: paths below the directory that are not part of the version.
    """

    spec: Spec
    files: int
    bytes: int
    new_bytes: int
    already: bool
    left_out: tuple[str, ...] = ()


def publish(
    directory: Path,
    spec: Spec,
    registry: Path | Storage,
    *,
    description: str | None = None,
    license: str | None = None,  # noqa: A002 - as the manifest and the option call it
    framework: str | None = None,
    tags: Sequence[str] = (),
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    signer: Signer | None = None,
    progress: Callable[[PublishProgress], None] | None = None,
) -> Published:
    """Publish the files below `directory` as `spec` into `registry`, a directory or any storage.

    To finish a publish that died, run it again. If `directory` is that of this version in a mount,
    or a copy of it, and no metadata is given, the registry gets the manifest of that version.

    Args:
        description, license, framework: by default from README.md and config.json.
        tags: added to the tags from README.md and config.json.
        signer: signs the version, also one that is published already.
        progress: called for each piece that was read or sent, in one thread at a time. An
            exception from it ends the publish.

    Raises:
        AxonError: the directory has no files, a file cannot be read, the version is published with
            other files, or the registry cannot be written (NoSpaceError if it is full).
        MalformedError: the chunk size or a name is invalid in a manifest.
    """
    check_chunk_size(chunk_size)
    given = {"description": description, "license": license, "framework": framework}
    storage = Directory(registry) if isinstance(registry, Path) else registry
    target = Registry(storage)
    own = (
        None if tags or any(text is not None for text in given.values()) else _own(directory, spec)
    )
    try:
        with disk_faults(storage.name):
            target.check_spec(spec)
            found = _scanned(directory, storage)
            storage.prepare()
            earlier = target.manifest(spec)
            if earlier:  # sizes reveal most changes before any byte is read
                refuse_changes(_sizes(earlier.files), _sizes(found.files))
            chunks = _chunk_size(own) or chunk_size
            stored = _Copies(target, chunks, found, progress).run(earlier)
            entries = tuple(item.entry for item in stored)
            if earlier:
                refuse_changes(digests(earlier.files), digests(entries))
            own = own if own and own.files == entries else None
            manifest = (
                earlier or own or render(spec, entries, described(target, entries, given, tags))
            )
            already = _enter(target, manifest, signer)
    except AxonError as exc:
        raise exc.located(spec=str(spec)) from exc
    new_bytes = sum(item.new_bytes for item in stored)
    left_out = tuple(path for path in found.left_out if not (own and path == MANIFEST_NAME))
    return Published(spec, len(entries), manifest.size, new_bytes, already, left_out)


def _own(directory: Path, spec: Spec) -> Manifest | None:
    """The manifest in `directory`, if it is of `spec`."""
    path = directory / MANIFEST_NAME
    try:
        if path.is_file():
            with path.open("rb") as file:
                return parse_manifest(file.read(MAX_MANIFEST_BYTES + 1), spec)
    except (OSError, MalformedError):
        pass  # then it is a file like others, which no version has
    return None


def _chunk_size(manifest: Manifest | None) -> int | None:
    """The chunk size of all files of a manifest; None if they have several."""
    sizes = {entry.chunks.size for entry in manifest.files if entry.chunks} if manifest else set()
    return sizes.pop() if len(sizes) == 1 else None


def _scanned(directory: Path, storage: Storage) -> Scan:
    if isinstance(storage, Directory) and storage.root.resolve().is_relative_to(
        directory.resolve()
    ):
        raise AxonError(
            "the registry is inside the directory to publish",
            hint="move the registry elsewhere",
        )
    return scan(directory)


class _Copies:
    """Copies all files, in a few threads."""

    def __init__(
        self,
        registry: Registry,
        chunk_size: int,
        found: Scan,
        progress: Callable[[PublishProgress], None] | None,
    ) -> None:
        self._registry = registry
        self._chunk_size = chunk_size
        self._together = Together(found.files, progress)
        self._local = threading.local()

    def run(self, earlier: Manifest | None) -> list[Stored]:
        """Copy every file; return the results in the order of their paths."""
        return self._together.run(
            lambda file: self._one(file, earlier.file(file.path) if earlier else None)
        )

    def _one(self, file: SourceFile, expected: FileEntry | None) -> Stored:
        copier = getattr(self._local, "copier", None)
        if copier is None:
            copier = Copier(self._registry, self._chunk_size, self._together.moved)
            self._local.copier = copier
        stored: Stored = copier.store(file, expected)
        return stored


def described(
    registry: Registry,
    entries: tuple[FileEntry, ...],
    given: Mapping[str, str | None],
    tags: Sequence[str] = (),
) -> Description:
    """The metadata of a new version, whose objects the registry has.

    Args:
        given: by the name of the field; None for what the files say.
        tags: added to those of the files.
    """
    by_path = {entry.path: entry for entry in entries}
    readme, config = (
        _content(registry, by_path.get(path)) for path in ("README.md", "config.json")
    )
    own = describe(by_path, readme, config)
    chosen = {key: text for key, text in given.items() if text is not None}
    return dataclasses.replace(own, **chosen, tags=tuple(dict.fromkeys((*tags, *own.tags))))


def _content(registry: Registry, entry: FileEntry | None) -> bytes:
    """The published bytes, from the registry: the file in the directory may change meanwhile."""
    if entry is None or entry.size > MAX_DESCRIBING_BYTES:
        return b""
    return registry.object(entry.digest, entry.size)


def render(
    spec: Spec,
    entries: tuple[FileEntry, ...],
    metadata: Description,
    created: float | None = None,
) -> Manifest:
    """The manifest of a new version.

    Args:
        created: in unix seconds; by default now.
    """
    bare = Manifest(
        spec=spec,
        files=entries,
        description=metadata.description,
        license=metadata.license,
        framework=metadata.framework,
        format=metadata.format,
        tags=metadata.tags,
        created=float(int(time.time() if created is None else created)),
    )
    return dataclasses.replace(bare, raw=render_manifest(bare))


def _enter(registry: Registry, manifest: Manifest, signer: Signer | None) -> bool:
    """Publish `manifest`; return True if the version was published before with the same files.

    Its signature is there before it is: no reader sees the version without.
    """
    if signer:
        _sign_first(registry, manifest, signer)
    # Another publisher may have been faster since the first look.
    earlier = registry.enter(manifest)
    if earlier:
        refuse_changes(digests(earlier.files), digests(manifest.files))
        if signer and earlier.digest != manifest.digest:
            sign(registry, earlier, signer)
    elif signer:
        drop_others(registry, manifest)
    registry.mend_lists(manifest.spec)
    return earlier is not None


def _sign_first(registry: Registry, manifest: Manifest, signer: Signer) -> None:
    try:
        sign(registry, manifest, signer)
    except AxonError:
        # A server refuses a signature that is not of the manifest which another publisher entered.
        entered = registry.manifest(manifest.spec)
        if entered is None or entered.digest == manifest.digest:
            raise


def _sizes(files: Iterable[FileEntry | SourceFile]) -> dict[str, object]:
    return {file.path: file.size for file in files}


def digests(files: Iterable[FileEntry]) -> dict[str, object]:
    """The digest of each file, by its path."""
    return {file.path: file.digest for file in files}


def refuse_changes(before: dict[str, object], now: dict[str, object]) -> None:
    """
    Raises:
        AxonError: a published version would get other files.
    """
    changed = [path for path in before.keys() | now.keys() if before.get(path) != now.get(path)]
    if changed:
        raise AxonError(
            f"it is already published with other files ('{printable(min(changed))}' differs)",
            hint="a published version never changes; publish these files as a new version",
        )
