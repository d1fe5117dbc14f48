"""`stats`: how much is in a registry, and how much of it versions share. Blocking."""

from __future__ import annotations

from dataclasses import dataclass

from axonfs.errors import MalformedError, VanishedError
from axonfs.names import Spec
from axonfs.publish.registry import Registry
from axonfs.registries.collect import Names, unnamed
from axonfs.registries.reader import Reader


@dataclass(frozen=True, slots=True)
class Stats:
    """What is in a registry; all sizes in bytes.

    Args:
        bytes: of the files of all versions.
        stored: the same, but what several versions have counts once.
        unnamed, unnamed_bytes: objects and chunk tables that no manifest names; None if the
            registry's files cannot be listed.
        unreadable: versions whose manifest is missing, malformed, or cannot be read.
    """

    models: int
    versions: int
    yanked: int
    files: int
    bytes: int
    objects: int
    stored: int
    unnamed: int | None
    unnamed_bytes: int | None
    unreadable: tuple[Spec, ...]


def stats(reader: Reader, registry: Registry | None = None) -> Stats:
    """The numbers of the registry of `reader`.

    Args:
        registry: the same registry, if its storage can be reached.
    """
    specs = reader.specs()
    objects: dict[str, int] = {}
    unreadable: list[Spec] = []
    files = total = 0
    for spec in sorted(specs):
        try:
            found = reader.manifest(spec)
        except (MalformedError, VanishedError):
            found = None
        if found is None:
            unreadable.append(spec)
            continue
        manifest, _ = found
        files, total = files + len(manifest.files), total + manifest.size
        objects.update((entry.digest, entry.size) for entry in manifest.files)
    extra = unnamed(registry, Names(registry)) if registry and not unreadable else None
    return Stats(
        models=len({spec.model for spec in specs}),
        versions=len(specs),
        yanked=sum(specs.values()),
        files=files,
        bytes=total,
        objects=len(objects),
        stored=sum(objects.values()),
        unnamed=len(extra) if extra is not None else None,
        unnamed_bytes=sum(listed.size for listed in extra) if extra is not None else None,
        unreadable=tuple(unreadable),
    )
