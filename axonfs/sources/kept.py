"""Documents that change, kept between runs: an index, a list of versions, a hub's answers.

Sits between the sources and documents.py. Asks whether what is kept is still current, and hands it
out as it is while nothing may be sent or nobody answers. Trio only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import trio

from axonfs.errors import DeadlineError, NotFoundError, UnavailableError
from axonfs.formats.document import Document
from axonfs.http_client.documents import Documents
from axonfs.sources.source import DocumentCache

log = logging.getLogger(__name__)

T = TypeVar("T")


class KeptDocuments:
    """The documents of one source.

    Args:
        headers: credentials, sent to the origin of each URL only.
    """

    def __init__(
        self, documents: Documents, cache: DocumentCache | None, headers: Mapping[str, str]
    ) -> None:
        self._documents = documents
        self._cache = cache
        self._headers = headers

    async def knows(self, url: str) -> bool:
        """Whether there was a document at `url` in this run or an earlier one."""
        return await self._known(url) is not None

    async def get(
        self,
        url: str,
        limit: int,
        parse: Callable[[bytes], T],
        *,
        offline: bool = False,
        allow_stale: bool = False,
    ) -> T | None:
        """What the document at `url` says, as it is now or as it is kept; None if there is none.

        What does not parse is not kept: a login page that answers for the source would take the
        place of what the source said.

        Args:
            limit: the most bytes it may have.
            parse: raises what the caller gets; runs in a thread.
            offline: send nothing.
            allow_stale: what is kept will do where the source cannot be reached.
        """
        known = await self._known(url)
        if offline:
            return await _parsed(parse, known.body) if known else None
        try:
            return await self._confirmed(url, limit, parse, known)
        except NotFoundError:
            return None
        except (UnavailableError, DeadlineError) as exc:
            if known is None or not allow_stale:
                raise
            log.info("using what it said earlier: %s", exc)
            return await _parsed(parse, known.body)

    async def _confirmed(
        self, url: str, limit: int, parse: Callable[[bytes], T], known: Document | None
    ) -> T:
        fetched = await self._documents.get(
            url, limit=limit, etag=known.etag if known else None, headers=self._headers
        )
        if fetched is None:
            assert known is not None  # only an ETag brings a 304
            if self._cache:
                await trio.to_thread.run_sync(self._cache.touch_document, url, time.time())
            return await _parsed(parse, known.body)
        said = await _parsed(parse, fetched.body)
        if self._cache:
            kept = Document(fetched.body, fetched.etag, time.time(), fetched.final_url)
            await trio.to_thread.run_sync(self._cache.put_document, url, kept)
        return said

    async def _known(self, url: str) -> Document | None:
        """What is kept; it may be large, and the index slow, so a thread reads and writes it."""
        if self._cache is None:
            return None
        return await trio.to_thread.run_sync(self._cache.document, url)


async def _parsed(parse: Callable[[bytes], T], body: bytes) -> T:
    return await trio.to_thread.run_sync(parse, body)
