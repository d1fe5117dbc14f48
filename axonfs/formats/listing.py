"""A registry's two lists: index.json (all versions of all models) and versions.json (one model's).

Pure. A malformed document is refused. A malformed entry of an index is skipped, so that one
careless publisher does not hide the models of the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from axonfs.errors import MalformedError
from axonfs.formats.manifest import MAX_SIZE, MAX_TAGS, MAX_TEXT, Manifest
from axonfs.names import LATEST, MAX_DEPTH, Spec, newest, plain, valid_segment, version_key
from axonfs.units import size

API_VERSION = "axonfs/v1"
MAX_INDEX_BYTES = 64 << 20
MAX_VERSIONS_BYTES = 4 << 20
MAX_VERSIONS = 20_000
# Values of an index: about ten per version. In memory they take up to fifty times their bytes.
MAX_NODES = 3_000_000


@dataclass(frozen=True, slots=True)
class Listing:
    """One version in an index; `size` in bytes, `published` in unix seconds, 0.0 if unknown."""

    spec: Spec
    description: str = ""
    framework: str = ""
    license: str = ""
    tags: tuple[str, ...] = ()
    size: int = 0
    published: float = 0.0


def listing_of(manifest: Manifest) -> Listing:
    """The entry of index.json for a version."""
    return Listing(
        spec=manifest.spec,
        description=manifest.description,
        framework=manifest.framework,
        license=manifest.license,
        tags=manifest.tags,
        size=manifest.size,
        published=manifest.created,
    )


@dataclass(frozen=True, slots=True)
class Versions:
    """A model's versions, oldest first, and the version that `latest` means.

    `aliases` maps names that may move, the branches and tags of a hub, to versions. `yanked` are
    versions that only their own names mean. A registry does not list them among `versions`; a
    mount does if they are local.
    """

    versions: tuple[str, ...]
    latest: str | None
    aliases: Mapping[str, str] = field(default_factory=dict)
    yanked: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, versions: Iterable[str], latest: str | None = None, yanked: Iterable[str] = ()
    ) -> Self:
        """`versions` in order. `latest` is the newest that is not yanked, unless it is given and
        one of these."""
        hidden = frozenset(yanked)
        made = cls(tuple(sorted(set(versions), key=version_key)), None, yanked=hidden)
        usable = made.usable
        return replace(made, latest=latest if latest in usable else newest(usable))

    @property
    def usable(self) -> tuple[str, ...]:
        """The versions that a constraint may choose from."""
        return tuple(version for version in self.versions if version not in self.yanked)


def parse_index(raw: bytes) -> tuple[list[Listing], int]:
    """The listings of index.json in its order, and the number of skipped malformed entries.

    Raises:
        MalformedError: the document is too large, not JSON, or not an index.
    """
    root = _object(raw, MAX_INDEX_BYTES, "index")
    models = root.get("models")
    if root.get("apiVersion") != API_VERSION or not isinstance(models, list):
        raise MalformedError(f"it is not an index with the apiVersion {API_VERSION}")
    found: dict[Spec, Listing] = {}
    for item in models:
        listing = _listing(item)
        if listing and listing.spec not in found:
            found[listing.spec] = listing
    return list(found.values()), len(models) - len(found)


def parse_yanked(raw: bytes) -> set[Spec]:
    """The yanked versions that index.json names beside its models; malformed ones are skipped.

    Raises:
        MalformedError: the document is too large, or not JSON.
    """
    items = _object(raw, MAX_INDEX_BYTES, "index").get("yanked")
    if not isinstance(items, list):
        return set()
    found = map(_spec, (item for item in items if isinstance(item, dict)))
    return set(filter(None, found))


def render_index(listings: Iterable[Listing], yanked: Iterable[Spec] = ()) -> bytes:
    """index.json, sorted by model and version: the same listings give the same bytes."""
    ordered = sorted(listings, key=lambda listing: _order(listing.spec))
    root: dict[str, object] = {
        "apiVersion": API_VERSION,
        "models": [listing_json(listing) for listing in ordered],
    }
    if hidden := [_spec_json(spec) for spec in sorted(yanked, key=_order)]:
        root["yanked"] = hidden
    return _json(root)


def _spec_json(spec: Spec) -> dict[str, object]:
    return {"namespace": spec.namespace, "name": spec.name, "version": spec.version}


def listing_json(listing: Listing) -> dict[str, object]:
    """One entry of index.json."""
    return {
        **_spec_json(listing.spec),
        "description": plain(listing.description, MAX_TEXT),
        "framework": plain(listing.framework, MAX_TEXT),
        "license": plain(listing.license, MAX_TEXT),
        "tags": [plain(tag, MAX_TEXT) for tag in listing.tags],
        "size": listing.size,
        "published": listing.published,
    }


def parse_versions(raw: bytes) -> Versions:
    """Parse versions.json; invalid versions in it are skipped.

    Raises:
        MalformedError: the document is too large, not JSON, or not a list of versions.
    """
    root = _object(raw, MAX_VERSIONS_BYTES, "list of versions")
    items = root.get("versions")
    if not isinstance(items, list):
        raise MalformedError("the list of versions has no versions")
    if len(items) > MAX_VERSIONS:
        raise MalformedError(f"it has {len(items):,} versions, more than {MAX_VERSIONS:,}")
    latest, yanked = root.get("latest"), root.get("yanked")
    return Versions.of(
        filter(_is_version, items),
        latest if isinstance(latest, str) else None,
        filter(_is_version, yanked[:MAX_VERSIONS]) if isinstance(yanked, list) else (),
    )


def render_versions(versions: Versions) -> bytes:
    ordered = sorted(versions.versions, key=version_key)
    yanked = sorted(versions.yanked, key=version_key)
    hidden = {"yanked": yanked} if yanked else {}
    return _json({"versions": ordered, "latest": versions.latest, **hidden})


def search(listings: Iterable[Listing], query: str) -> list[Listing]:
    """The listings whose model, description, framework or tags contain every word of `query`.

    Exact names come first, then names with every word, then the rest; within each group by model,
    newest version first. An empty query matches everything.
    """
    words = query.casefold().split()
    hits = [listing for listing in listings if _hit(listing, words)]
    hits.sort(key=lambda listing: version_key(listing.spec.version), reverse=True)
    return ranked(sorted(hits, key=lambda listing: listing.spec.model), query)


def ranked(hits: Iterable[Listing], query: str) -> list[Listing]:
    """`hits` with exact names first, then names with every word; otherwise in the same order."""
    words = query.casefold().split()
    return sorted(hits, key=lambda listing: _rank(listing, words))


def _hit(listing: Listing, words: list[str]) -> bool:
    fields = (listing.spec.model, listing.description, listing.framework, *listing.tags)
    text = "\n".join(fields).casefold()
    return all(word in text for word in words)


def _rank(listing: Listing, words: list[str]) -> int:
    model = listing.spec.model.casefold()
    query = " ".join(words)
    if query == model or query == model.rpartition("/")[2] or query == model.partition("/")[2]:
        return 0
    return 1 if all(word in model for word in words) else 2


def _order(spec: Spec) -> tuple[object, ...]:
    return (spec.model, version_key(spec.version))


def _object(raw: bytes, limit: int, what: str) -> dict[str, object]:
    if len(raw) > limit:
        raise MalformedError(f"the {what} is larger than {size(limit)}")
    if raw.count(b",") + raw.count(b"{") + raw.count(b"[") > MAX_NODES:
        raise MalformedError(f"the {what} has more than {MAX_NODES:,} values")
    try:
        root = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise MalformedError(f"the {what} is not JSON: {plain(str(exc))}") from exc
    if not isinstance(root, dict):
        raise MalformedError(f"the {what} is not a JSON object")
    return root


def _json(root: dict[str, object]) -> bytes:
    return json.dumps(root, indent=1, ensure_ascii=False).encode() + b"\n"


def _listing(item: object) -> Listing | None:
    if not isinstance(item, dict):
        return None
    spec = _spec(item)
    count = _number(item.get("size", 0))
    if spec is None or count is None or count != int(count):
        return None
    tags = item.get("tags")
    return Listing(
        spec=spec,
        description=_text(item.get("description")),
        framework=_text(item.get("framework")),
        license=_text(item.get("license")),
        tags=tuple(filter(None, map(_text, tags[:MAX_TAGS]))) if isinstance(tags, list) else (),
        size=int(count),
        published=float(_number(item.get("published")) or 0.0),
    )


def _spec(item: dict[str, object]) -> Spec | None:
    namespace, name, version = (item.get(key) for key in ("namespace", "name", "version"))
    if not (isinstance(namespace, str) and isinstance(name, str) and _is_version(version)):
        return None
    segments = [namespace, *name.split("/")]
    if len(segments) >= MAX_DEPTH or not all(map(valid_segment, segments)):
        return None
    return Spec(namespace, name, str(version))


def _is_version(item: object) -> bool:
    return isinstance(item, str) and valid_segment(item) and item != LATEST


def _number(item: object) -> int | float | None:
    """A JSON number from 0 to MAX_SIZE; None for any other, and for NaN and infinities."""
    if isinstance(item, bool) or not isinstance(item, int | float):
        return None
    return item if 0 <= item <= MAX_SIZE else None


def _text(item: object) -> str:
    return plain(item, MAX_TEXT) if isinstance(item, str) else ""
