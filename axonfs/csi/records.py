"""What the plugin has to remember over restarts: one small file for each target, and its own pins.

The kubelet calls again with the same request until it succeeds, so a version that a constraint
chose once stays chosen for that target. A file is replaced whole. Blocking; the caller has the
target.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from axonfs.csi.volume import Volume

_SUFFIX = ".json"
_PINS = "pins.json"
_DRAFT = ".draft"
# What an invalid file causes. A file that cannot be read now is another thing: what it says still
# counts.
_INVALID = (FileNotFoundError, ValueError, TypeError, KeyError)


@dataclass(frozen=True, slots=True)
class Record:
    """A volume at a target.

    Args:
        root: the directory of the mount that is bound there, as mountinfo names it.
        spec: its version, "" if the volume is not one version.
    """

    volume_id: str
    target: str
    volume: Volume
    root: str
    spec: str = ""

    @property
    def pinned(self) -> str:
        """The version that is pinned for it, "" if none is."""
        return self.spec if self.volume.pin else ""


class Records:
    """The records in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()  # guards the file of the pins
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for draft in directory.glob(f"*{_DRAFT}"):  # of a plugin that was killed
            draft.unlink(missing_ok=True)

    def get(self, target: str) -> Record | None:
        """The record of a target; None if it has none, or none that can be read."""
        return _read(self._place(target))

    def put(self, record: Record) -> None:
        _write(self._place(record.target), asdict(record))

    def drop(self, target: str) -> None:
        self._place(target).unlink(missing_ok=True)

    def all(self) -> Iterator[Record]:
        for place in sorted(self._directory.glob(f"*{_SUFFIX}")):
            if place.name != _PINS and (record := _read(place)) is not None:
                yield record

    def own(self, spec: str) -> None:
        """Note that the pin of a version is this plugin's, before it is made."""
        with self._lock:
            self._save({*self._owned(), spec})

    def disown(self, spec: str) -> None:
        with self._lock:
            self._save(self._owned() - {spec})

    def owned(self) -> set[str]:
        """The versions whose pins are this plugin's."""
        with self._lock:
            return self._owned()

    def pinned(self) -> set[str]:
        """The versions whose pins targets ask for."""
        return {record.pinned for record in self.all()} - {""}

    def unused(self) -> set[str]:
        """The versions with a pin of this plugin that no target asks for any more."""
        return self.owned() - self.pinned()

    def _owned(self) -> set[str]:
        with suppress(*_INVALID):
            return set(map(str, json.loads((self._directory / _PINS).read_bytes())))
        return set()

    def _save(self, specs: set[str]) -> None:
        _write(self._directory / _PINS, sorted(specs))

    def _place(self, target: str) -> Path:
        name = hashlib.sha256(target.encode(errors="surrogateescape")).hexdigest()
        return self._directory / f"{name}{_SUFFIX}"


def _read(place: Path) -> Record | None:
    with suppress(*_INVALID):
        found = _known(Record, json.loads(place.read_bytes()))
        return Record(**{**found, "volume": Volume(**_known(Volume, found["volume"]))})
    return None


def _known(kind: type[Record | Volume], found: dict[str, Any]) -> dict[str, Any]:
    """The fields without those that only another version of the plugin has. Pods keep their volumes
    over its upgrade, and over the way back."""
    return {field.name: found[field.name] for field in fields(kind) if field.name in found}


def _write(place: Path, document: Any) -> None:
    draft = place.with_name(f"{place.name}.{threading.get_ident()}{_DRAFT}")
    try:
        with draft.open("w") as file:
            file.write(json.dumps(document))
            file.flush()
            os.fsync(file.fileno())  # a pin whose owner is forgotten would stay for ever
        os.replace(draft, place)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
