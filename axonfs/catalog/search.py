"""Searches all registries, or one hub. Above tree; trio thread only."""

from __future__ import annotations

import logging
from functools import partial

import trio

from axonfs.catalog.tree import Tree
from axonfs.errors import AxonError
from axonfs.formats.listing import Listing, ranked
from axonfs.formats.listing import search as matching

log = logging.getLogger(__name__)


async def search_registries(tree: Tree, query: str) -> list[Listing]:
    """Listings that match, best first: from the indexes, and the search of registries without one.

    Raises:
        AxonError: nothing matches, and the search of a registry failed.
    """
    hits = await _listed(tree, query)
    if not hits and tree.outages.listing_pending():
        await tree.wait_for_listings()
        hits = await _listed(tree, query)
    found = {listing.spec: listing for listing in hits}
    failures: list[AxonError] = []
    for source in tree.registries:
        if tree.outages.of(source).indexed or tree.offline:
            continue
        try:
            hits = await tree.outages.send(source, partial(source.search, query))
            found = {listing.spec: listing for listing in hits} | found
        except AxonError as exc:
            failures.append(exc)
    if failures and not found:
        raise failures[0]
    for failure in failures:
        log.warning("%s", failure)
    return ranked(found.values(), query)


async def _listed(tree: Tree, query: str) -> list[Listing]:
    return await trio.to_thread.run_sync(matching, (await tree.catalog()).listings, query)


async def search_hub(tree: Tree, name: str, query: str) -> list[Listing]:
    """The results of a hub's own search, in the hub's order."""
    hub = tree.hubs[name]
    return await tree.outages.send(hub, partial(hub.search, query))
