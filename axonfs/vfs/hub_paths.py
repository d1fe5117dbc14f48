"""What is at each path below a hub's namespace: models that nobody lists, and their revisions.

    hf/<org>/<name>/<commit>/…     a version
    hf/<org>/<name>/<revision>     a symlink to the commit that a branch, a tag or `latest` is at,
                                   percent-encoded where it is no plain word: refs%2Fpr%2F1
    hf/<name>/<revision>           a model without an organisation

Sits beside paths.py, inside vfs. What is known locally is listed and looked up without a word to
the hub, and so is everything above the models. Below that, a name that is looked up is asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from axonfs.catalog.tree import Tree, Version
from axonfs.errors import AccessDeniedError, AxonError, NotFoundError, OfflineError
from axonfs.names import LATEST, Spec, is_commit, spec_of, valid_segment

Path = tuple[str, ...]
# What a path is: a directory above the versions (None), a version, or the name a symlink leads to.
Found = Version | str | None

MODEL_DEPTH = 3  # of hf/<org>/<name>
_PROBED = (".json", ".safetensors", ".jinja", ".py", ".txt")
# What desktops look for in the root of any mount, in any case of letters. Names with a dot in
# front are no model's anyway.
_DESKTOP = frozenset(
    {
        "autorun",
        "autorun.exe",
        "autorun.inf",
        "autorun.sh",
        "desktop.ini",
        "lost+found",
        "thumbs.db",
    }
)
_REVISIONS = frozenset({"main", "master", LATEST})  # more likely to be one than a model


def is_probe(name: str) -> bool:
    """Whether a name is one that programs look for in any directory, and no model's.

    Above the versions it does not exist unless it is listed, whether or not a source answers.
    """
    return name.endswith(_PROBED) or name.lower() in _DESKTOP


class HubPaths:
    """Lookup and listing in the namespaces of `tree.hubs`."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def has(self, path: Path) -> bool:
        """Whether `path` is in the namespace of a hub."""
        return bool(path) and path[0] in self._tree.hubs

    async def known(self) -> set[str]:
        """The hubs that something is known of locally."""
        return (await self._tree.local()).directories[()].children & self._tree.hubs.keys()

    async def lookup(self, path: Path) -> Found:
        """
        Raises:
            NotFoundError: there is no such model or revision.
            AxonError: the hub could not be asked, or does not say.
        """
        probed = len(path) > MODEL_DEPTH and is_probe(path[-1])
        if probed or (not all(map(valid_segment, path)) and spec_of(path) is None):
            raise NotFoundError("no such model or revision", path="/".join(path))
        if len(path) < MODEL_DEPTH or path in (await self._tree.local()).directories:
            return None
        if len(path) == MODEL_DEPTH:
            return await self._model_or_revision(path)
        return await self._revision(path)

    async def listing(self, path: Path) -> dict[str, Found]:
        """What is known locally, and the branches and tags of a model that is.

        A model that is not known locally is asked for, since its directory was looked up.
        """
        directory = (await self._tree.local()).directory(path)
        names: dict[str, Found] = dict.fromkeys(directory.children)
        if directory.versions or len(path) == MODEL_DEPTH:
            names |= await self._aliases(path, known=bool(directory.versions))
        for version in directory.versions:
            names[version] = await self._revision((*path, version))
        return names

    async def names(self, path: Path) -> set[str]:
        """What `listing` names, as far as it is known; waits for no hub."""
        directory = (await self._tree.local()).directory(path)
        names = directory.children | directory.versions
        if versions := self._tree.cached_versions("/".join(path)):
            names |= versions.aliases.keys()
        return names

    async def _aliases(self, path: Path, *, known: bool) -> dict[str, Found]:
        try:
            versions = await self._tree.versions("/".join(path))
        except AxonError:
            if known:
                return {}  # what is local is listed while the hub is down
            raise
        latest = {LATEST: versions.latest} if versions.latest else {}
        return {**versions.aliases, **latest}

    async def _model_or_revision(self, path: Path) -> Found:
        """hf/a/b is the model `a/b`, or the revision `b` of a model without an organisation.

        Both are asked for where the first says no: a hub may refuse what does not exist.
        """
        unknown: AxonError | None = None
        guesses: list[Callable[[Path], Awaitable[Found]]] = [self._model, self._revision]
        if path[-1] in _REVISIONS or is_commit(path[-1]):
            guesses.reverse()
        for guess in guesses:
            try:
                return await guess(path)
            except NotFoundError:
                continue
            except (AccessDeniedError, OfflineError) as exc:
                unknown = unknown or exc
        raise unknown or NotFoundError("no such model or revision", path="/".join(path))

    async def _model(self, path: Path) -> None:
        if not valid_segment(path[-1]):
            raise NotFoundError("no such model", path="/".join(path))
        spec = Spec(path[0], "/".join(path[1:]), LATEST)
        if await self._tree.target(spec) is None:
            raise NotFoundError("no such model", spec=spec.model)

    async def _revision(self, path: Path) -> Found:
        spec = spec_of(path)
        assert spec is not None  # each segment is valid, and there are three or more
        target = await self._tree.target(spec)
        if target is None:
            raise NotFoundError("no such revision", spec=str(spec))
        return target if target != spec.version else await self._tree.version(spec)
