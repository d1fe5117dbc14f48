"""What is at each path below oci/: registries, repositories of any depth, tags and versions.

    oci/<alias>/<repository>/<version>/…      a version
    oci/<alias>/<repository>/<tag>            a symlink to the version of a tag, or of `latest`

Beside hub_paths.py, which asks this module for paths below oci/. A name may be part of the name of
a repository, or a tag, and only the registry knows. Most registries list nothing, and refuse what
does not exist. So a name that a registry says nothing about is taken for a directory while a
repository may still be below it.
"""

from __future__ import annotations

from axonfs.catalog.tree import Tree, Version
from axonfs.errors import AccessDeniedError, AxonError, NotFoundError
from axonfs.names import OCI, hub_of, spec_of, valid_segment

Path = tuple[str, ...]
# What is at a path: a directory above the versions (None), a version, or the target of a symlink.
Found = Version | str | None

# Segments of a path that names a repository of one segment: oci/<alias>/<repository>.
SHORTEST = 3
# A refused name is taken for a directory up to this depth: oci/<alias>/<organisation>/<name>.
REFUSED_DEPTH = 4


class OciPaths:
    """Lookup below oci/, for the registries in `tree.hubs`."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    @property
    def aliases(self) -> set[str]:
        """The names of the registries."""
        keys = (name.partition("/") for name in self._tree.hubs)
        return {alias for namespace, _, alias in keys if namespace == OCI and alias}

    async def lookup(self, path: Path) -> Found:
        """What is at `path`, which has two segments or more.

        Raises:
            NotFoundError: there is no such registry, repository or tag.
            AxonError: the registry did not answer, or refused.
        """
        if hub_of("/".join(path)) not in self._tree.hubs or not all(map(valid_segment, path)):
            raise NotFoundError("no such registry, repository or tag", path="/".join(path))
        if len(path) <= SHORTEST or path in (await self._tree.local()).directories:
            return None
        return await self._tag_or_repository(path)

    async def repositories(self, path: Path, *, wait: bool) -> set[str]:
        """The next segments of listed repositories below `path`.

        Args:
            wait: for the registry, if its list is not known.
        """
        if len(path) < 2 or hub_of("/".join(path)) not in self._tree.hubs:
            return set()
        listed = await self._tree.models_of("/".join(path[:2]), wait=wait)
        inside = path[2:]
        split = (tuple(name.split("/")) for name in listed)
        below = (name for name in split if name[: len(inside)] == inside)
        return {name[len(inside)] for name in below if len(name) > len(inside)}

    async def _tag_or_repository(self, path: Path) -> Found:
        spec = spec_of(path)
        assert spec is not None  # the segments are valid, and there are four or more
        refused: AxonError | None = None
        try:
            target = await self._tree.target(spec)
        except AccessDeniedError as exc:
            target, refused = None, exc
        if target is not None:
            return target if target != spec.version else await self._tree.unchecked(spec)
        if await self._is_repository(path):
            return None
        if refused and len(path) > REFUSED_DEPTH:
            raise refused
        if not refused and await self._is_repository(path[:-1]):
            raise NotFoundError("no such tag", spec=str(spec))
        return None

    async def _is_repository(self, path: Path) -> bool:
        """Whether the registry lists tags of the repository at `path`."""
        try:
            return bool((await self._tree.versions("/".join(path))).versions)
        except (AccessDeniedError, NotFoundError):
            return False
