"""The web page of a registry in its storage, `axonfs.page`. Blocking."""

from __future__ import annotations

import logging

from axonfs.errors import AxonError, MalformedError
from axonfs.formats.layout import PAGE
from axonfs.page import MAX_PAGE_BYTES, may_replace, page
from axonfs.storage import Storage

log = logging.getLogger(__name__)


def write_page(storage: Storage) -> None:
    """Write the web page, unless there is one of a newer axonfs or one that others wrote.

    Without it a registry is as good for every reader but a browser, so a fault fails nothing.
    """
    try:
        before = storage.read(PAGE, MAX_PAGE_BYTES)
        if before is None or (before.body != page() and may_replace(before.body)):
            storage.replace(PAGE, page(), before)
    except MalformedError:
        return  # of others: it is larger than any page of axonfs
    except (AxonError, OSError) as exc:
        log.warning("the registry's web page %s is not up to date: %s", PAGE, exc)
