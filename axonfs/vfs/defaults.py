"""The files of a model's `latest` version, by their names in the model's own directory.

    nlp/llama-2-7b/config.json        → latest/config.json
    hf/<org>/<name>/tokenizer.json    → latest/tokenizer.json

So a program that is given the directory of a model without a version loads the latest one. A
listing has only versions and revisions, until a program has looked up a file there: then it also
has the files for a while, since loaders find weights by a listing.

Beside paths.py, inside vfs.
"""

from __future__ import annotations

import trio

from axonfs.catalog.tree import Tree, Version
from axonfs.errors import AxonError
from axonfs.names import HUBS, LATEST, Spec
from axonfs.vfs.hub_paths import MODEL_DEPTH, is_probe
from axonfs.vfs.places import Alias

Path = tuple[str, ...]

LISTED_SECONDS = 600.0  # since the last lookup of such a file; loaders take seconds or minutes
# Since the latest version could not be had, which may have taken a deadline: so long no `free` name
# is looked up in it, or each wrong name would wait as long.
AGAIN_SECONDS = 10.0
_KEPT = 4096


class Defaults:
    """Lookup and listing of such files. Versions and revisions of the same name go before them."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._looked_up: dict[Path, float] = {}  # directories, and when
        self._failed: dict[Path, float] = {}

    def listed(self, directory: Path) -> bool:
        """Whether the listing of a directory has the files."""
        when = self._looked_up.get(directory)
        return when is not None and trio.current_time() - when < LISTED_SECONDS

    def mark(self, directory: Path) -> set[str]:
        """A name that no entry has, while the listing of a directory has the files."""
        return {""} if self.listed(directory) else set()

    async def lookup(self, path: Path, *, free: bool = False) -> Alias | None:
        """The symlink for a file or folder of the latest version; None if there is none.

        Any name may be a version. So until one has been looked up in the directory, a name has to
        be one that loaders look for, or `free`: no version, revision or model has it.
        """
        directory, name = path[:-1], path[-1]
        known = is_probe(name) or self.listed(directory)
        if not known and (not free or self._failing(directory)):
            return None
        version = await self._latest(directory)
        if version is None or not _has(version, name):
            return None
        _note(self._looked_up, directory)
        return _alias(path)

    async def listing(self, directory: Path) -> dict[str, Alias]:
        """The symlinks that the listing of a directory has."""
        version = await self._latest(directory) if self.listed(directory) else None
        files = version.manifest.files if version else ()
        names = {entry.path.partition("/")[0] for entry in files}
        return {name: _alias((*directory, name)) for name in names}

    async def _latest(self, directory: Path) -> Version | None:
        """The latest version of the model with this directory; None if that is not known.

        Raises nothing: while a source does not answer, a name that any program may look for must
        not exist.
        """
        if not await self._may_be_model(directory):
            return None
        spec = Spec(directory[0], "/".join(directory[1:]), LATEST)
        try:
            return await self._tree.unchecked(spec)
        except AxonError:
            _note(self._failed, directory)
            return None

    def _failing(self, directory: Path) -> bool:
        when = self._failed.get(directory)
        return when is not None and trio.current_time() - when < AGAIN_SECONDS

    async def _may_be_model(self, directory: Path) -> bool:
        if len(directory) < 2:
            return False
        if (await self._tree.local()).directory(directory).versions:
            return True
        if self._tree.outages.doubt("/".join(directory)):
            return False
        if directory[0] in self._tree.hubs.keys() & set(HUBS):
            return len(directory) <= MODEL_DEPTH
        if not self._tree.has_catalog():
            return False
        return bool((await self._tree.catalog()).directory(directory).versions)


def _note(times: dict[Path, float], directory: Path) -> None:
    if len(times) >= _KEPT:
        times.clear()
    times[directory] = trio.current_time()


def _has(version: Version, name: str) -> bool:
    """Whether a file or folder with this name is in the version's own directory."""
    inside = (entry.path.startswith(f"{name}/") for entry in version.manifest.files)
    return version.manifest.file(name) is not None or any(inside)


def _alias(path: Path) -> Alias:
    return Alias(path, f"{LATEST}/{path[-1]}")
