"""The lists of an OCI registry: tags of a repository, and repositories, in pages that Link joins.

Below oci.py. Trio only.
"""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import trio

from axonfs.errors import MalformedError
from axonfs.formats.document import Document
from axonfs.http_client.documents import Documents
from axonfs.names import oci_digest, valid_segment
from axonfs.sources.source import DocumentCache

MAX_PAGE_BYTES = 4 << 20
# Of one list. A registry may give fewer names in a page than it is asked for.
MAX_PAGES, MAX_NAMES = 2000, 200_000
PAGE = 1000
MAX_DIGEST = len("sha256-") + 64


class OciLists:
    """The lists of the registry at `host`.

    Args:
        cache: keeps the last answers.
    """

    def __init__(self, host: str, documents: Documents, cache: DocumentCache | None) -> None:
        self._root = f"oci://{host}/v2/"
        self._documents = documents
        self._cache = cache

    async def stored(self, path: str) -> list[str] | None:
        """The names in a list when it was last requested."""
        if self._cache is None:
            return None
        kept = await trio.to_thread.run_sync(self._cache.document, f"{self._root}{path}")
        return _names(kept.body, "names") if kept else None

    async def names(self, path: str, key: str) -> list[str]:
        """The names in a list now, which are kept for when the registry does not answer.

        Args:
            key: of the names in the registry's answer.

        Raises:
            MalformedError: the answer is no such list, or does not end.
            AxonError: the registry refuses, or does not answer.
        """
        names = await self._pages(path, key)
        if self._cache:
            url, body = f"{self._root}{path}", json.dumps({"names": names}).encode()
            kept = Document(body, None, time.time(), url)
            await trio.to_thread.run_sync(self._cache.put_document, url, kept)
        return names

    async def _pages(self, path: str, key: str) -> list[str]:
        """The names under `key` of all pages of a list."""
        url, names = f"{self._root}{path}?n={PAGE}", dict[str, None]()
        for _ in range(MAX_PAGES):
            before, check = len(names), partial(_names, key=key)
            fetched = await self._documents.get(url, limit=MAX_PAGE_BYTES, check=check)
            assert fetched is not None  # no ETag was sent
            names |= dict.fromkeys(found := _names(fetched.body, key))
            if not fetched.following:
                return list(names)
            if (found and len(names) == before) or len(names) > MAX_NAMES:
                break
            # A mirror may name itself, so only the position is used.
            url = f"{self._root}{path}?{urlsplit(fetched.following).query}"
        what = f"the registry's list does not end, or has more than {MAX_NAMES:,} names"
        raise MalformedError(what)


def _names(raw: bytes, key: str) -> list[str]:
    try:
        found: Any = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise MalformedError("the registry's list is not JSON", hint="check its URL") from exc
    names = found.get(key) if isinstance(found, dict) else None
    if not isinstance(names, list | None):
        raise MalformedError(f"the registry's list has no {key}", hint="check its URL")
    return [name for name in names or () if isinstance(name, str) and _is_name(name)]


def _is_name(name: str) -> bool:
    """Whether it may be the name of a repository or of a tag of a model. Tags that look like a
    digest are of what refers to the model with it."""
    return all(map(valid_segment, name.split("/"))) and not oci_digest(name[:MAX_DIGEST])
