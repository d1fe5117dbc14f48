"""What is at each path below a hub's namespace: models, which no index lists, and revisions.

    hf/<org>/<name>/<commit>/…     a version
    hf/<org>/<name>/<revision>     a symlink to the commit of a branch, a tag or `latest`,
                                   percent-encoded if it has special characters: refs%2Fpr%2F1
    hf/<name>/<revision>           a model without an organisation

Sits beside paths.py, inside vfs. Local versions, and directories above models, are listed and
looked up without a request. The lookup of any other name sends a request to the hub.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from axonfs.catalog.tree import Tree
from axonfs.errors import AccessDeniedError, AxonError, NotFoundError, OfflineError
from axonfs.names import LATEST, OCI, Spec, is_commit, spec_of, valid_segment
from axonfs.vfs.oci_paths import Found, OciPaths, Path

MODEL_DEPTH = 3  # of hf/<org>/<name>
_PROBED = (".json", ".safetensors", ".jinja", ".py", ".txt")
# Names that desktops look up in the root of any mount, in any case. Models never have names that
# begin with a dot.
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
_REVISIONS = frozenset({"main", "master", LATEST})  # probably a revision, not a model


def is_probe(name: str) -> bool:
    """Whether programs look for this name in any directory, so that it is not a model's.

    Above the versions such a name does not exist unless it is listed; no source is asked.
    """
    return name.endswith(_PROBED) or name.lower() in _DESKTOP


class HubPaths:
    """Lookup and listing in the namespaces of `tree.hubs`."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._oci = OciPaths(tree)

    def has(self, path: Path) -> bool:
        """Whether `path` is in the namespace of a hub."""
        if path[:1] == (OCI,):
            return bool(self._oci.aliases)
        return bool(path) and path[0] in self._tree.hubs

    async def known(self) -> set[str]:
        """The hubs with local versions, and the namespace of the OCI registries."""
        local = (await self._tree.local()).directories[()].children & self._tree.hubs.keys()
        return local | ({OCI} if self._oci.aliases else set())

    async def lookup(self, path: Path) -> Found:
        """What is at `path`.

        Raises:
            NotFoundError: there is no such model or revision.
            AxonError: the hub did not answer, or refused.
        """
        if path[0] == OCI and len(path) > 1 and not is_probe(path[-1]):
            return await self._oci.lookup(path)
        probed = len(path) > MODEL_DEPTH and is_probe(path[-1])
        if probed or (not all(map(valid_segment, path)) and spec_of(path) is None):
            raise NotFoundError("no such model or revision", path="/".join(path))
        if len(path) < MODEL_DEPTH or path in (await self._tree.local()).directories:
            return None
        if len(path) == MODEL_DEPTH:
            return await self._model_or_revision(path)
        return await self._revision(path)

    async def listing(self, path: Path) -> dict[str, Found]:
        """The names in a directory: local ones, and the branches and tags of a model.

        For a model that is not known locally this sends a request, since its directory was looked
        up.
        """
        directory = (await self._tree.local()).directory(path)
        names: dict[str, Found] = dict.fromkeys(directory.children)
        if path == (OCI,):
            return dict.fromkeys(self._oci.aliases)
        if path[0] == OCI:
            names |= dict.fromkeys(await self._oci.repositories(path, wait=True))
        if directory.versions or self._may_be_model(path):
            known = bool(names or directory.versions)
            names |= await self._aliases(path, known=known)
        for version in directory.versions:
            names[version] = await self._revision((*path, version))
        return names

    def _may_be_model(self, path: Path) -> bool:
        return len(path) >= MODEL_DEPTH if path[0] == OCI else len(path) == MODEL_DEPTH

    async def names(self, path: Path) -> set[str]:
        """The names in `listing` that are known; waits for no hub."""
        directory = (await self._tree.local()).directory(path)
        names = directory.children | directory.versions
        if path[0] == OCI:
            names |= self._oci.aliases if path == (OCI,) else set()
            names |= await self._oci.repositories(path, wait=False)
        if versions := self._tree.cached_versions("/".join(path)):
            names |= versions.aliases.keys()
        return names

    async def _aliases(self, path: Path, *, known: bool) -> dict[str, Found]:
        try:
            versions = await self._tree.versions("/".join(path))
        except AxonError:
            if known:
                return {}  # list the local versions while the hub is down
            raise
        latest = {LATEST: versions.latest} if versions.latest else {}
        return {**versions.aliases, **latest}

    async def _model_or_revision(self, path: Path) -> Found:
        """hf/a/b is the model `a/b`, or the revision `b` of a model without an organisation.

        Tries both. A refusal does not end the search, since hubs also refuse unknown names.
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
        assert spec is not None  # the caller checked the segments, and there are three or more
        target = await self._tree.target(spec)
        if target is None:
            raise NotFoundError("no such revision", spec=str(spec))
        return target if target != spec.version else await self._tree.unchecked(spec)
