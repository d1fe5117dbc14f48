"""What is at each path of the mount: the results of lookup and readdir, as places.

Sits inside vfs, above tree. Inodes, attributes and handles are in vfs.py. No file's bytes are read
here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from axonfs.catalog.catalog import ListedDirectory, names_fraction
from axonfs.catalog.tree import Tree
from axonfs.errors import AxonError, NotFoundError
from axonfs.names import HUB_VIEW, LATEST, spec_of, valid_segment, version_key
from axonfs.vfs.defaults import Defaults
from axonfs.vfs.folders import Inside
from axonfs.vfs.hub_paths import MODEL_DEPTH, HubPaths, is_probe
from axonfs.vfs.hub_view import HubView
from axonfs.vfs.oci_paths import Found
from axonfs.vfs.places import (
    FOREVER,
    LISTING_TTL,
    Alias,
    Directory,
    Entry,
    Folder,
    Place,
    Text,
    hashed,
)
from axonfs.vfs.streams import ACCESS_LOG, Log

CONTROL = ".axonfs"
STATUS = "status.json"


class Paths:
    """Lookup and listing over a tree; `status` returns the state for status.json, and `access_log`
    is the other file of `.axonfs`, if there is one."""

    def __init__(
        self, tree: Tree, status: Callable[[], dict[str, Any]], access_log: Log | None = None
    ) -> None:
        self._tree = tree
        self._status = status
        self._access_log = access_log
        self._hubs = HubPaths(tree)
        self._view = HubView(tree)
        self._defaults = Defaults(tree)
        self._inside = Inside()

    root = Directory(())

    async def at(self, path: tuple[str, ...]) -> Place:
        """What is at a path that was looked up before, for example by an earlier worker.

        Raises:
            NotFoundError: it no longer exists.
            AxonError: it is not local, and a source did not answer.
        """
        place = await self.local(path) or await self._lookup_path(path)
        if place is None:
            raise NotFoundError("no longer exists", path="/".join(path))
        return place

    async def local(self, path: tuple[str, ...]) -> Place | None:
        """Like `at`, but only from the manifests in the cache; None if those are not enough.

        The cache usually has the manifest of a version that was entered.
        """
        if path[:1] == (CONTROL,):
            return self._control_file(path[1]) if path[1:] else Directory(path)
        if self._view.has(path):
            return self._below(await self._view.local(path[:4]), path[4:])
        for depth in range(len(path), 2, -1):
            spec = spec_of(path[:depth])
            if spec and (version := await self._tree.known(spec)):
                return self._below(Folder(path[:depth], version, ""), path[depth:])
        return Directory(path) if len(path) < 3 else None

    def _below(self, place: Place | None, names: tuple[str, ...]) -> Place | None:
        for name in names:
            place = self._inside.child(place, name) if isinstance(place, Folder) else None
        return place

    async def _lookup_path(self, path: tuple[str, ...]) -> Place | None:
        """Look up the path name by name, since the cache may have dropped the version's manifest.

        Guessing is not safe: the kernel would never open a file again that it got as a directory.
        """
        place: Place | None = self.root
        for name in path:
            place = await self.lookup(place, name) if place else None
        return place

    async def lookup(self, parent: Place, name: str) -> Place | None:
        """The place with `name` in `parent`, None if it does not exist.

        Raises:
            UntrustedError: it is in a version that nobody whom one trusts has signed.
            AxonError: a source that might have the name did not answer.
        """
        if parent == Directory((CONTROL,)):
            return self._control_file(name)
        if isinstance(parent, Directory) and self._view.has(parent.path):
            return await self._view.lookup((*parent.path, name))
        parent = await self._with_manifest(parent)
        await self.admit(parent)
        if isinstance(parent, Folder):
            return self._inside.child(parent, name)
        if isinstance(parent, Directory):
            return await self._in_directory(parent, name)
        return None

    async def listing(self, place: Place) -> list[Entry]:
        """The entries of a directory, by position. In a version, which never changes, by name.

        Raises:
            NotFoundError: no index lists the directory; it exists only for lookups below it.
            UntrustedError: nobody whom one trusts has signed the version.
        """
        if place == Directory((CONTROL,)):
            return [Entry(1, STATUS, self._status_file())]
        if isinstance(place, Directory) and self._view.has(place.path):
            return _sorted(await self._view.listing(place.path))
        place = await self._with_manifest(place)
        await self.admit(place)
        if isinstance(place, Folder):
            return self._inside.listing(place)
        assert isinstance(place, Directory)
        return _sorted(await self._list_directory(place))

    async def dated(self, place: Directory) -> tuple[float, float]:
        """The mtime of a directory, and for how many seconds the kernel may cache it.

        A version's directory has the time when it was published, a directory above versions that of
        the newest one. The fraction of its second changes whenever names change. Waits for no
        source.
        """
        path = place.path
        if self._view.has(path):
            return await self._view.dated(path)
        if self._hubs.has(path):
            names = await self._hubs.names(path) | self._defaults.mark(path)
            return names_fraction(names), LISTING_TTL
        if not self._tree.has_catalog():
            return 0.0, LISTING_TTL
        spec, catalog = spec_of(path), await self._tree.catalog()
        if spec and (listing := catalog.by_spec.get(spec)):
            return listing.published, FOREVER
        if directory := catalog.directories.get(path):
            hubs = await self._hubs.known() if path == () else set()
            names = directory.children | directory.versions | hubs | self._defaults.mark(path)
            return directory.published // 1 + names_fraction(names), LISTING_TTL
        if versions := self._tree.cached_versions("/".join(path)):
            return names_fraction(versions.versions), LISTING_TTL
        return 0.0, LISTING_TTL

    async def admit(self, place: Place) -> None:
        """Return if what is in the version of a place may be read.

        Raises:
            UntrustedError: nobody whom one trusts has signed the version.
        """
        if version := getattr(place, "version", None):
            await self._tree.admission.admit(version)

    async def _with_manifest(self, place: Place) -> Place:
        """`place` with its manifest, if it is a version whose manifest was not loaded yet."""
        if not isinstance(place, Directory) or len(place.path) < 3:
            return place
        if self._hubs.has(place.path):
            return place
        spec = spec_of(place.path)
        if spec and (version := await self._tree.known(spec)):
            return Folder(place.path, version, "")
        if place.path in (await self._tree.local()).directories:
            return place
        catalog = await self._tree.catalog()
        if spec and place.path[-1] in catalog.directory(place.path[:-1]).versions:
            return Folder(place.path, await self._tree.unchecked(spec), "")
        if place.path in catalog.directories:
            return place
        return await self._unlisted(place.path) or place

    async def _in_directory(self, parent: Directory, name: str) -> Place | None:
        path = (*parent.path, name)
        if path in ((CONTROL,), (HUB_VIEW,)):
            return Directory(path)
        if self._hubs.has(path):
            return await self._in_hub(path)
        if not valid_segment(name):
            return None
        if local := await self._in_cache(path):
            self._tree.request_catalog()
            return local
        if is_probe(name) and not self._tree.has_catalog():
            return await self._defaults.lookup(path)
        if len(path) == 1:
            return await self._namespace(path)
        directory = (await self._tree.catalog()).directory(parent.path)
        if name in directory.children or name in directory.versions:
            return Directory(path)
        if name == LATEST and len(parent.path) >= 2:
            return await self._latest(parent)
        if default := await self._defaults.lookup(path):
            return default
        if is_probe(name):
            return None
        return await self._unlisted(path) or await self._defaults.lookup(path, free=True)

    async def _in_cache(self, path: tuple[str, ...]) -> Place | None:
        """What is at `path` according to the cache; sends nothing."""
        spec = spec_of(path)
        if spec and (version := await self._tree.known(spec)):
            return Folder(path, version, "")
        return Directory(path) if path in (await self._tree.local()).directories else None

    async def _namespace(self, path: tuple[str, ...]) -> Directory | None:
        """A directory in the root: a listed one, a new one, or one that may not exist."""
        tree, (name,) = self._tree, path
        if tree.has_catalog() and name in (await tree.catalog()).directories[()].children:
            return Directory(path)
        if is_probe(name):
            return None
        if tree.outages.doubt(name):
            return Directory(path, certain=False)
        try:
            if name in (await tree.catalog(fresh=True)).directories[()].children:
                return Directory(path)
        except AxonError:
            return Directory(path, certain=False)
        if tree.outages.doubt(name) or tree.outages.listing_pending():
            return Directory(path, certain=False)
        if unconfigured := tree.outages.no_registry(name):
            raise unconfigured
        return None if tree.outages.indexed else Directory(path)

    async def _unlisted(self, path: tuple[str, ...]) -> Directory | Folder | None:
        """A name that no index lists: a new one, a version or model that resolves, or None."""
        if spec := spec_of(path):
            try:
                return Folder(path, await self._tree.unchecked(spec), "")
            except NotFoundError:
                pass
        if (await self._tree.versions("/".join(path))).versions:
            return Directory(path)
        fresh = await self._tree.catalog(fresh=True)
        if path in fresh.directories:  # published since the index was asked for
            return Directory(path)
        doubt = self._tree.outages.doubt("/".join(path))
        # A registry without an index: a name that is not like a version may be a directory.
        if not self._tree.outages.indexed and version_key(path[-1])[0] == 0:
            return Directory(path, certain=doubt is None)
        if spec is None and doubt:
            raise doubt
        return None

    async def _in_hub(self, path: tuple[str, ...]) -> Place | None:
        default = await self._defaults.lookup(path)
        if default and path[-1] not in await self._hubs.names(path[:-1]):
            return default
        if is_probe(path[-1]) and (await self._tree.local()).directory(path[:-1]).versions:
            return None  # in the directory of a model
        try:
            return _hub_place(path, await self._hubs.lookup(path))
        except NotFoundError:
            free = len(path) > MODEL_DEPTH
            return await self._defaults.lookup(path, free=True) if free else None

    async def _latest(self, parent: Directory) -> Place | None:
        model = "/".join(parent.path)
        latest = (await self._tree.versions(model)).latest
        if latest is None and (doubt := self._tree.outages.doubt(model)):
            raise doubt
        return Alias((*parent.path, LATEST), latest) if latest is not None else None

    async def _list_directory(self, place: Directory) -> dict[str, Place]:
        defaults: dict[str, Place] = {**await self._defaults.listing(place.path)}
        if self._hubs.has(place.path):
            found = await self._hubs.listing(place.path)
            return defaults | {name: _hub_place((*place.path, name), found[name]) for name in found}
        directory = (await self._tree.catalog()).directories.get(place.path)
        if directory is None:
            directory = await self._unlisted_directory(place)
        names = defaults | {
            name: Directory((*place.path, name)) for name in directory.children | directory.versions
        }
        if directory.versions and (latest := await self._latest(place)):
            names[LATEST] = latest
        if place.path == ():
            names |= {name: Directory((name,)) for name in await self._hubs.known()}
            if not names and (fault := self._tree.outages.fault()):
                raise fault
            names[CONTROL] = Directory((CONTROL,))
        return names

    async def _unlisted_directory(self, place: Directory) -> ListedDirectory:
        model = "/".join(place.path)
        versions = (await self._tree.versions(model)).versions
        if not versions:
            what = "no index lists the names in this directory"
            raise self._tree.outages.doubt(model) or NotFoundError(what, path=model)
        return ListedDirectory(versions=set(versions))

    def _control_file(self, name: str) -> Text | Log | None:
        if name == ACCESS_LOG:
            return self._access_log
        return self._status_file() if name == STATUS else None

    def _status_file(self) -> Text:
        def render() -> bytes:
            return json.dumps(self._status(), indent=1).encode() + b"\n"

        return Text((CONTROL, STATUS), render, 0, time.time(), live=True)


def _sorted(found: Mapping[str, Place]) -> list[Entry]:
    """The entries of a listing whose names may come and go."""
    return sorted(Entry(hashed(name), name, found[name]) for name in found)


def _hub_place(path: tuple[str, ...], found: Found) -> Place:
    if isinstance(found, str):
        return Alias(path, found)
    return Folder(path, found, "") if found else Directory(path)
