"""What the methods of `axonfs.Client` return: small values, made of the service's answers.

Sizes are in bytes, times are aware datetimes in UTC. Nothing here asks anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from axonfs.call import Event


@dataclass(frozen=True, slots=True)
class ModelListing:
    """One version of a model, as a registry or a hub lists it: what `search` finds.

    `spec` is `namespace/name@version`. `size` and `published` are None where the source does not
    tell them.
    """

    spec: str
    namespace: str
    name: str
    version: str
    description: str
    framework: str
    license: str
    tags: tuple[str, ...]
    size: int | None
    published: datetime | None


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of a version; `local` is how many of its bytes are in the cache.

    `verified_by` says what its bytes are compared with: `sha256`, `git` (a git blob id) or
    `package` (the sha256 of the package that it comes in), and `digest` is that digest. Both are
    None for a file that cannot be verified.
    """

    path: str
    size: int
    local: int
    verified_by: str | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Everything about one version of a model.

    `spec` names the version, never `latest`. `path` is its directory in the mount, None where
    nothing is mounted. `pinned` is `complete`, `incomplete` or empty. `digest` is the sha256 of the
    manifest, `source` the URL that the version comes from. `facts` is what its hub says beside
    that, `left_out` has the files that no directory can hold.
    """

    spec: str
    namespace: str
    name: str
    version: str
    description: str
    license: str
    framework: str
    format: str
    execution_format: str
    tags: tuple[str, ...]
    created: datetime | None
    digest: str
    source: str
    path: Path | None
    pinned: str
    size: int
    local: int
    files: tuple[FileInfo, ...]
    facts: Mapping[str, str | int] = field(default_factory=dict, hash=False)
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a model; `size` is None where it is not known yet.

    `local` bytes of it are in the cache. `pinned` is `complete`, `incomplete` or empty. `aliases`
    are the branches and tags of a hub that are at this commit. A `yanked` version is chosen by its
    exact name only.
    """

    version: str
    size: int | None
    local: int
    pinned: str
    aliases: tuple[str, ...]
    yanked: bool = False


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of a model, the oldest first, and which of them is `latest`."""

    model: str
    latest: str | None
    versions: tuple[Version, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pin is, in bytes: of `total`, `done` are local, and `fetched` since it began.

    `path` is the file that is on its way, empty between two. `fetched` is None while the pin proves
    what it has: then `done` counts the bytes that were checked.
    """

    spec: str
    path: str
    done: int
    total: int
    fetched: int | None


@dataclass(frozen=True, slots=True)
class PinResult:
    """A version that is pinned: whole, checked and kept.

    Of its `size`, `fetched` bytes came from a source and `copied` ones from a place on this
    machine: Hugging Face's cache, or the directory of a registry; the others were local. `chunks`
    were checked. `unverified` counts the files that no digest can tell about. `path` is its
    directory in the mount, None where nothing is mounted.
    """

    spec: str
    path: Path | None
    files: int
    size: int
    fetched: int
    copied: int
    chunks: int
    unverified: int


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the mount, or of the cache where nothing is mounted.

    `mountpoint` and `pid` are None where nothing is mounted. `pins` counts the pinned versions,
    `failures` are the errors that readers of the mount got lately. `details` has all that
    `axonfs status --json` prints, by the same keys.
    """

    mountpoint: Path | None
    pid: int | None
    cache: Path
    cache_used: int
    cache_limit: int
    offline: bool
    registries: tuple[str, ...]
    pins: int
    failures: tuple[str, ...]
    details: Mapping[str, Any] = field(repr=False, hash=False)


def listing(item: Mapping[str, Any]) -> ModelListing:
    """A listing that `search` found."""
    return ModelListing(
        spec=item["spec"],
        namespace=item["namespace"],
        name=item["name"],
        version=item["version"],
        description=item["description"],
        framework=item["framework"],
        license=item["license"],
        tags=tuple(item["tags"]),
        size=item["size"] or None,
        published=_moment(item["published"]),
    )


def model_info(found: Mapping[str, Any]) -> ModelInfo:
    """The version that `info` found."""
    return ModelInfo(
        spec=found["spec"],
        namespace=found["namespace"],
        name=found["name"],
        version=found["version"],
        description=found["description"],
        license=found["license"],
        framework=found["framework"],
        format=found["format"],
        execution_format=found["execution_format"],
        tags=tuple(found["tags"]),
        created=_moment(found["created"]),
        digest=found["digest"],
        source=found["source"],
        path=_path(found["path"]),
        pinned=found["pinned"],
        size=found["size"],
        local=found["local"],
        files=tuple(map(_file, found["files"])),
        facts=dict(found["facts"]),
        left_out=tuple(found["left_out"]),
    )


def _file(item: Mapping[str, Any]) -> FileInfo:
    kind = next((kind for kind in ("sha256", "git", "package") if kind in item), None)
    digest = item[kind] if kind else None
    return FileInfo(item["path"], item["size"], item["local"], kind, digest)


def versions(answer: Event) -> Versions:
    """The answer to `versions`."""
    items = tuple(
        Version(
            version=item["version"],
            size=item["size"],
            local=item["local"],
            pinned=item["pinned"],
            aliases=tuple(item["aliases"]),
            yanked=item["yanked"],
        )
        for item in answer["versions"]
    )
    return Versions(answer["model"], answer["latest"], items)


def progress(event: Event) -> Progress:
    """How far a pin is, of an event that says so."""
    return Progress(
        spec=event["spec"],
        path=event.get("path", ""),
        done=event["done"],
        total=event["total"],
        fetched=event.get("fetched"),
    )


def pin_result(item: Mapping[str, Any]) -> PinResult:
    """One version of the answer to `pin`."""
    return PinResult(
        spec=item["spec"],
        path=_path(item["path"]),
        files=item["files"],
        size=item["total"],
        fetched=item["fetched"],
        copied=item["copied"],
        chunks=item["receipt"]["chunks"],
        unverified=item["receipt"].get("unverified", 0),
    )


def status(state: Mapping[str, Any]) -> Status:
    """The answer to `status`."""
    return Status(
        mountpoint=_path(state.get("mountpoint")),
        pid=state.get("pid"),
        cache=Path(state["cache"]),
        cache_used=state["cache_used"],
        cache_limit=state["cache_limit"],
        offline=bool(state.get("offline")),
        registries=tuple(item["url"] for item in state.get("registries") or ()),
        pins=(state.get("pins") or {}).get("count", 0),
        failures=tuple(map(_failure, state.get("failures") or ())),
        details=dict(state),
    )


def _failure(item: Any) -> str:
    return str(item.get("message", item)) if isinstance(item, dict) else str(item)


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
