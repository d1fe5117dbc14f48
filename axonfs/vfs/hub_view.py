"""What is at each path below `.hub`: models by id, laid out as the Hub's clients keep their cache.

    .hub/models--<org>--<name>/refs/<revision>        a file with the commit of a branch, tag or
                                                      version; refs/main is the default one
    .hub/models--<org>--<name>/snapshots/<commit>/…   the files of a version
    .hub/models--<org>--<name>/blobs                  empty: snapshots have files, not symlinks
    .hub/.locks/models--<org>--<name>                 empty, and not listed: clients make it first

The commit of a registry's version is made from its manifest, so it is the same on each machine, and
another content has another commit. A client finds a commit in a listing of `snapshots` after it
read it in `refs`. So the lookup of a revision resolves its version, and what is resolved is listed.
llama.cpp finds a model in the listing of `.hub`, after it tried to write into its `refs`; so the
lookup of a hub's model resolves the default revision. The listings of a model have the default
revision and what is local, since a client that walks its cache reads all of that.

Sits beside paths.py, inside vfs; catalog/ids.py says which model an id means.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress

import trio

from axonfs.catalog.catalog import names_fraction
from axonfs.catalog.ids import Ids
from axonfs.catalog.tree import Tree, Version
from axonfs.errors import AccessDeniedError, AxonError, MalformedError, NotFoundError
from axonfs.names import (
    HUB_VIEW,
    HUBS,
    LATEST,
    Spec,
    is_commit,
    revision_of,
    version_segment,
    view_folder,
    view_id,
)
from axonfs.vfs.places import ABSENT_TTL, FOREVER, LISTING_TTL, Directory, Folder, Place, Text

Path = tuple[str, ...]

BLOBS, REFS, SNAPSHOTS, LOCKS = "blobs", "refs", "snapshots", ".locks"
_PARTS = (BLOBS, REFS, SNAPSHOTS)
DEFAULT = "main"
COMMIT_LENGTH = 40
# Directories of the Hub's own refs, which it does not list: refs/pr/1, refs/convert/parquet.
_REF_DIRECTORIES = ("refs", "refs/pr", "refs/convert")
# A registry's commit that is not local is looked for in this many of the newest versions.
SEARCHED = 100
_KEPT = 4096  # models whose resolved versions stay in memory


class HubView:
    """Lookup and listing below `.hub`."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._ids = Ids(tree)
        self._resolved: dict[str, set[str]] = {}  # versions by model, also those not stored yet
        self._refused: dict[str, tuple[float, AccessDeniedError]] = {}

    def has(self, path: Path) -> bool:
        """Whether a path is that of the hub view, or below it."""
        return path[:1] == (HUB_VIEW,)

    async def lookup(self, path: Path) -> Place | None:
        """What is at `path`; None if nothing is.

        Raises:
            AxonError: a source that might have the model did not answer, or refused.
        """
        if path in ((HUB_VIEW,), (HUB_VIEW, LOCKS)):
            return Directory(path)
        if path[1] == LOCKS:
            return Directory(path) if len(path) == 3 and view_id(path[2]) else None
        model_id = view_id(path[1])
        if model_id is None:
            return None
        try:
            match path[2:]:
                case ():
                    return await self._model(path, model_id)
                case (part,):
                    return Directory(path) if part in _PARTS else None
                case ("refs", *names):
                    model = await self._ids.model(model_id)
                    return await self._ref(path, model, "/".join(names))
                case ("snapshots", commit) if is_commit(commit):
                    model = await self._ids.model(model_id)
                    return Folder(path, await self._by_commit(model, commit), "")
        except NotFoundError:
            return None
        return None

    async def listing(self, path: Path) -> dict[str, Place]:
        """The names in a directory: what registries list, and what is local.

        Raises:
            AxonError: nothing of it is known, and a source did not answer.
        """
        if len(path) == 1:
            folders = map(view_folder, await self._ids.known())
            return {name: Directory((*path, name)) for name in folders if name}
        if path[1] == LOCKS or path[2:] == (BLOBS,):
            return {}
        if len(path) == 2:
            return {name: Directory((*path, name)) for name in _PARTS}
        model = await self._ids.model(view_id(path[1]) or "")
        if path[2] == SNAPSHOTS:
            found = await self._snapshots(model)
            return {commit: Folder((*path, commit), found[commit], "") for commit in found}
        return self._inside_refs(path, await self._refs(model))

    async def dated(self, path: Path) -> tuple[float, float]:
        """As `Paths.dated`. The kernel asks before it uses a listing of snapshots again, since a
        revision that was looked up a moment before is in it."""
        if path[1:2] == (LOCKS,) or len(path) == 2 or path[2:] == (BLOBS,):
            return 0.0, FOREVER
        changing = 0.0 if path[2:] == (SNAPSHOTS,) else LISTING_TTL
        return names_fraction(await self._names(path)), changing

    async def _names(self, path: Path) -> AbstractSet[str]:
        """Names that change whenever those in `listing` do; waits for no source."""
        if len(path) == 1:
            return await self._ids.known(wait=False)
        names = set[str]()
        local = await self._tree.local()
        for model in self._ids.candidates(view_id(path[1]) or ""):
            names |= local.directory(tuple(model.split("/"))).versions
            names |= self._resolved.get(model, set())
            if versions := self._tree.cached_versions(model):
                names |= {f"{name} {commit}" for name, commit in versions.aliases.items()}
        return names

    async def local(self, path: Path) -> Place | None:
        """What is at a path that was looked up before, from the manifests in the cache; None if
        those do not tell."""
        match path[1:]:
            case (_, "snapshots", commit):
                for model in self._ids.candidates(view_id(path[1]) or ""):
                    for version in await self._local(model):
                        if self._commit(version) == commit:
                            return Folder(path, version, "")
                return None
            case (_, "refs", _):
                return None
        return Directory(path)

    async def _model(self, path: Path, model_id: str) -> Directory | None:
        model = await self._ids.model(model_id)
        if (await self._tree.local()).directory(tuple(model.split("/"))).versions:
            return Directory(path)
        when, refusal = self._refused.get(model, (0.0, None))
        if refusal is not None and trio.current_time() - when < ABSENT_TTL:
            raise refusal.located(spec=model)
        try:
            return Directory(path) if await self._exists(model) else None
        except AccessDeniedError as exc:
            # Clients look up a model that they do not find a dozen times.
            if len(self._refused) >= _KEPT:
                self._refused.clear()
            self._refused[model] = trio.current_time(), exc
            raise

    async def _exists(self, model: str) -> bool:
        if self._tree.hub(model):
            if await self._tree.target(_spec(model, LATEST)) is None:
                return False
            with suppress(AxonError):
                await self._version(model, LATEST)
            return True
        return bool((await self._tree.versions(model)).versions)

    async def _version(self, model: str, name: str) -> Version:
        found = await self._tree.unchecked(_spec(model, name))
        if model not in self._resolved and len(self._resolved) >= _KEPT:
            self._resolved.clear()
        self._resolved.setdefault(model, set()).add(found.spec.version)
        return found

    def _commit(self, version: Version) -> str:
        name = version.spec.version
        return name if is_commit(name) else version.manifest.digest[:COMMIT_LENGTH]

    async def _by_commit(self, model: str, commit: str) -> Version:
        """The version with this commit.

        Raises:
            NotFoundError: there is none.
        """
        if self._tree.hub(model):
            return await self._version(model, commit)
        for version in await self._local(model):
            if self._commit(version) == commit:
                return version
        names = (await self._tree.versions(model)).versions
        for name in reversed(names[-SEARCHED:]):
            try:
                version = await self._version(model, name)
            except (NotFoundError, MalformedError):
                continue
            if self._commit(version) == commit:
                return version
        raise NotFoundError("no version has this commit", spec=f"{model}@{commit}")

    async def _local(self, model: str) -> list[Version]:
        """The local versions of a model; sends nothing."""
        directory = (await self._tree.local()).directory(tuple(model.split("/")))
        names = directory.versions | self._resolved.get(model, set())
        found = [await self._tree.known(_spec(model, name)) for name in sorted(names)]
        return [version for version in found if version is not None]

    async def _snapshots(self, model: str) -> dict[str, Version]:
        """The default version and the local ones, by commit."""
        default, failure = None, None
        try:
            default = await self._version(model, LATEST)
        except AxonError as exc:
            failure = exc
        versions = [*await self._local(model), *([default] if default else [])]
        if not versions and failure:
            raise failure
        return {self._commit(version): version for version in versions}

    async def _ref(self, path: Path, model: str, revision: str) -> Place | None:
        of_hub = self._tree.hub(model) is not None
        if of_hub and revision in _REF_DIRECTORIES:
            return Directory(path)
        try:
            return self._file(path, await self._revision(model, revision))
        except NotFoundError:
            inside = of_hub and await self._has_refs_below(model, revision)
            return Directory(path) if inside else None

    async def _revision(self, model: str, revision: str) -> Version:
        if is_commit(revision):
            return await self._by_commit(model, revision)
        name = LATEST if revision == DEFAULT else version_segment(model.split("/")[0], revision)
        if name is None:
            raise NotFoundError("no such revision", spec=model)
        return await self._version(model, name)

    async def _has_refs_below(self, model: str, revision: str) -> bool:
        aliases = await self._aliases(model)
        return any(revision_of(name).startswith(f"{revision}/") for name, _ in aliases)

    async def _refs(self, model: str) -> dict[str, Version]:
        """The revisions in a listing: the default one, and those whose versions are local."""
        snapshots = await self._snapshots(model)
        if self._tree.hub(model):
            named = {revision_of(name): commit for name, commit in (await self._aliases(model))}
        else:
            named = {version.spec.version: commit for commit, version in snapshots.items()}
        named.pop(DEFAULT, None)
        with suppress(AxonError):
            named[DEFAULT] = self._commit(await self._version(model, LATEST))
        return {name: snapshots[commit] for name, commit in named.items() if commit in snapshots}

    async def _aliases(self, model: str) -> Iterable[tuple[str, str]]:
        with suppress(AxonError):
            return (await self._tree.versions(model)).aliases.items()
        return ()

    def _inside_refs(self, path: Path, refs: dict[str, Version]) -> dict[str, Place]:
        places: dict[str, Place] = {}
        above = path[3:]
        for revision in sorted(refs):
            names = tuple(revision.split("/"))
            if names[: len(above)] != above or len(names) <= len(above):
                continue
            name, last = names[len(above)], len(names) == len(above) + 1
            place = self._file((*path, name), refs[revision]) if last else Directory((*path, name))
            places.setdefault(name, place)
        return places

    def _file(self, path: Path, version: Version) -> Text:
        """The file of a revision; it is read anew at each open, since a branch may move."""
        commit = self._commit(version).encode()
        created = version.manifest.created
        return Text(path, lambda: commit, len(commit), created, live=True, version=version)


def listings_of(spec: Spec) -> list[Path]:
    """The directories of the hub view whose listings have a version."""
    model_id = spec.name if spec.namespace in HUBS else spec.model
    folder = view_folder(model_id)
    if folder is None:
        return []
    return [(HUB_VIEW,), (HUB_VIEW, folder, REFS), (HUB_VIEW, folder, SNAPSHOTS)]


def _spec(model: str, version: str) -> Spec:
    namespace, _, name = model.partition("/")
    return Spec(namespace, name, version)
