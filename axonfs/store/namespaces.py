"""Which objects the models of a namespace have, for quotas.

Beside metadata, whose manifests say it. Each manifest is parsed once, and only while a quota asks:
what it names stays in memory, about 100 bytes for each file.

Threading: any thread; the first call takes long where thousands of versions are known.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable

from axonfs.formats.manifest import Manifest
from axonfs.settings.limits import in_scope
from axonfs.store.index import Index, Table

# The checksum with which the record of a manifest begins.
_SEAL = 8


class Namespaces:
    """The objects by model.

    Args:
        parse: the manifest of a record, None for one that is damaged.
    """

    def __init__(self, index: Index, parse: Callable[[bytes], Manifest | None]) -> None:
        self._index = index
        self._parse = parse
        self._known: dict[tuple[bytes, bytes], tuple[str, frozenset[str]]] = {}
        self._lock = threading.Lock()

    def objects(self, scopes: Collection[str]) -> dict[str, set[str]]:
        """The digests that the models of each scope have, as local manifests say."""
        if not scopes:
            return {}
        with self._lock:
            self._refresh()
            known = list(self._known.values())
        return {
            scope: _union(files for model, files in known if in_scope(scope, model))
            for scope in scopes
        }

    def _refresh(self) -> None:
        present, fresh = set(), {}
        with self._index.view() as view:
            for key, raw in view.scan(Table.MANIFESTS):
                present.add(name := (key, raw[:_SEAL]))
                if name not in self._known:
                    fresh[name] = raw
        for gone in self._known.keys() - present:
            del self._known[gone]
        for name, raw in fresh.items():
            manifest = self._parse(raw)
            files = manifest.files if manifest else ()
            model = manifest.spec.model if manifest else ""
            self._known[name] = model, frozenset(entry.digest for entry in files)


def _union(sets: Iterable[frozenset[str]]) -> set[str]:
    return set().union(*sets)
