"""Which model an id of the Hub's clients names: `ORG/NAME` is a model of a registry or of a hub.

Above tree. A namespace that a registry has is the registries' alone: an id in it is never looked up
on a hub, where anybody could publish what a reader expects from the registry. Capitals make no
difference there, as on the hubs. All other ids are those of the first hub in the setting `sources`.
Trio thread only.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from axonfs.catalog.catalog import Catalog
from axonfs.catalog.outages import kept
from axonfs.catalog.tree import Tree
from axonfs.errors import AxonError, NotFoundError, OfflineError
from axonfs.names import HUB_NAMESPACES, HUBS, view_folder
from axonfs.sources import Source


class Ids:
    """The ids of the models in `tree`."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._hub = next((name for name in tree.hubs if name in HUBS), None)
        self._indexed: set[Source] = set()  # registries whose list of models is known
        nothing = Catalog(())
        self._known: tuple[Catalog, Catalog, frozenset[str]] = nothing, nothing, frozenset()

    def candidates(self, model_id: str) -> list[str]:
        """The models that may have the id, as `namespace/name`. Sends nothing."""
        found = [model_id] if "/" in model_id else []
        return [*found, f"{self._hub}/{model_id}"] if self._hub else found

    async def model(self, model_id: str) -> str:
        """The model with this id, as `namespace/name`; it may not exist.

        Raises:
            NotFoundError: no source could have it.
            AxonError: a registry that may have its namespace does not answer.
        """
        if "/" in model_id and await self._in_registry(model_id):
            return model_id
        if self._hub is None:
            what = NotFoundError("no such model", spec=model_id, hint="try axonfs search")
            raise self._tree.outages.no_registry(model_id) or what
        return f"{self._hub}/{model_id}"

    async def known(self, *, wait: bool = True) -> frozenset[str]:
        """The ids that registries list, and those of local models.

        Args:
            wait: for registries that have not listed their models yet.
        """
        tree, local = self._tree, await self._tree.local()
        listed = await tree.catalog() if wait or tree.has_catalog() else local
        if self._known[:2] != (listed, local):
            self._known = listed, local, self._ids(listed, local)
        return self._known[2]

    def _ids(self, listed: Catalog, local: Catalog) -> frozenset[str]:
        namespaces = listed.directory(()).children - set(HUB_NAMESPACES)
        taken = set(map(str.casefold, namespaces))
        found = set()
        for path, directory in (*listed.directories.items(), *local.directories.items()):
            of_hub = path[:1] == (self._hub,)
            segments = path[1:] if of_hub else path
            mine = len(segments) > 1 and segments[0].casefold() in taken
            if directory.versions and mine != of_hub and (mine or of_hub):
                found.add("/".join(segments))
        return frozenset(model_id for model_id in found if view_folder(model_id))

    async def _in_registry(self, model_id: str) -> bool:
        """Whether the namespace of the id is one of the registries'."""
        tree, namespace = self._tree, model_id.partition("/")[0]
        if namespace in HUB_NAMESPACES:
            return False
        local = await tree.local()
        if _has(local.directory(()).children, namespace):
            return True
        of_hub = bool(local.directory((str(self._hub), *model_id.split("/"))).versions)
        try:
            if _has((await tree.catalog()).directory(()).children, namespace):
                return True
        except AxonError:
            if of_hub:
                return False
            raise
        if not of_hub:
            return await self._in_unlisted(model_id)
        with suppress(AxonError):  # what is local is read while a registry is down
            return await self._in_unindexed(model_id)
        return False

    async def _in_unlisted(self, model_id: str) -> bool:
        """Whether a registry has the id that no registry is known to list.

        Raises:
            AxonError: a registry does not answer, and never listed its models.
        """
        tree, namespace = self._tree, model_id.partition("/")[0]
        newest = await tree.catalog(fresh=True)
        if tree.outages.listing_pending():
            await tree.wait_for_listings()
            newest = await tree.catalog()
        if _has(newest.directory(()).children, namespace):
            return True
        for source in tree.registries:
            fault = tree.outages.of(source).fault or source.denial
            if tree.offline and not fault:
                fault = OfflineError("not in the cache, and offline")
            if fault and not await self._listed(source):
                raise fault.located(spec=model_id)
        return await self._in_unindexed(model_id)

    async def _in_unindexed(self, model_id: str) -> bool:
        """Whether a registry without an index has the model, for which it is asked, or listed the
        namespace before: a gateway may say of all that is behind it that it does not exist."""
        tree, namespace = self._tree, model_id.partition("/")[0]
        if tree.outages.indexed:
            return False
        for source in tree.registries:
            if not tree.outages.of(source).indexed:
                listings = await kept(source.listings(offline=True)) or ()
                if _has((listing.spec.namespace for listing in listings), namespace):
                    return True
        return bool((await tree.versions(model_id)).versions)

    async def _listed(self, source: Source) -> bool:
        """Whether the list of a registry's models is known, now or from an earlier run."""
        if source not in self._indexed and await kept(source.listings(offline=True)) is not None:
            self._indexed.add(source)
        return source in self._indexed


def _has(namespaces: Iterable[str], wanted: str) -> bool:
    folded = wanted.casefold()
    return any(name.casefold() == folded for name in namespaces)
