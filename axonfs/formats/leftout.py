"""Files that no directory can hold are left out of a version, so that its other files are served.

Pure; beside manifest.py, which refuses hostile manifests. From a registry's manifest this drops
files with a name that is too long, for example. From a hub's list it drops every invalid path, and
the second of two files with the same path: odd files in a repository are not an attack.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import attrgetter
from typing import Protocol, TypeVar

from axonfs.errors import MalformedError
from axonfs.formats.safe_yaml import Node
from axonfs.names import check_path, plain, unusable
from axonfs.units import counted

log = logging.getLogger(__name__)

MAX_SHOWN = 100
MAX_TEXT = 300


class _Named(Protocol):
    @property
    def path(self) -> str: ...


File = TypeVar("File", bound=_Named)


def usable_nodes(node: Node) -> tuple[Node, list[str]]:
    """A manifest's list of files without the unusable ones, and the paths of those."""
    if not isinstance(node, list):
        return node, []
    odd = [_odd_path(item) for item in node]
    kept = [item for item, path in zip(node, odd, strict=True) if path is None]
    return kept, [path for path in odd if path is not None]


def _odd_path(item: Node) -> str | None:
    """The path of a file that no directory can hold; None for any other item."""
    path = item.get("path") if isinstance(item, dict) else None
    return path if isinstance(path, str) and unusable(path) else None


def usable_files(files: Iterable[File]) -> tuple[list[File], list[str]]:
    """The usable files of a hub's list, in the order of their paths, and the other paths."""
    kept: dict[str, File] = {}
    left_out: list[str] = []
    for file in sorted(files, key=attrgetter("path")):
        if kept.get(file.path) == file:
            continue  # the same file, listed twice
        folders = accumulate(file.path.split("/")[:-1], "{}/{}".format)
        if _is_plain(file.path) and file.path not in kept and kept.keys().isdisjoint(folders):
            kept[file.path] = file
        else:
            left_out.append(file.path)
    return list(kept.values()), left_out


def _is_plain(path: str) -> bool:
    try:
        check_path(path)
    except MalformedError:
        return False
    return True


def printable_paths(paths: Iterable[object]) -> tuple[str, ...]:
    """The first MAX_SHOWN paths, printable and shortened."""
    return tuple(plain(str(path), MAX_TEXT) for path in list(paths)[:MAX_SHOWN])


def warn(spec: object, left_out: Sequence[str]) -> None:
    """Log the files that are left out, once, when a version is first looked up."""
    if left_out:
        paths = (f"'{path}'" for path in left_out[:3])
        shown = ", ".join(paths) + ("…" if len(left_out) > 3 else "")
        log.warning(
            "%s is served without %s that no directory can hold: %s",
            spec,
            counted(len(left_out), "file"),
            shown,
        )
