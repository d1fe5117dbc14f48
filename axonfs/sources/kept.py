"""Documents that change and are kept between runs: indexes, lists of versions, hubs' answers.

Between the sources and documents.py. It revalidates a kept document by its ETag, and returns it
unchanged while offline or, if the caller allows it, while the source does not answer. Trio only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

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

    async def has(self, url: str) -> bool:
        """Whether a document from `url` is kept, from this run or an earlier one."""
        return await self._stored(url) is not None

    async def get(
        self,
        url: str,
        limit: int,
        parse: Callable[[bytes], T],
        *,
        offline: bool = False,
        allow_stale: bool = False,
    ) -> T | None:
        """The parsed document at `url`, revalidated or kept; None if it does not exist.

        Documents that do not parse are not kept, because a login page must not replace the
        source's last answer.

        Args:
            limit: the maximum size in bytes.
            parse: runs in a thread; its exceptions pass through.
            offline: send nothing, use the kept document.
            allow_stale: use the kept document if the source does not answer.
        """
        stored = await self._stored(url)
        if offline:
            return await _parsed(parse, stored.body) if stored else None
        try:
            return await self._confirmed(url, limit, parse, stored)
        except NotFoundError:
            return None
        except (UnavailableError, DeadlineError) as exc:
            if stored is None or not allow_stale:
                raise
            log.info("using an earlier answer: %s", exc)
            return await _parsed(parse, stored.body)

    async def _confirmed(
        self, url: str, limit: int, parse: Callable[[bytes], T], stored: Document | None
    ) -> T:
        parse = Once(parse)
        fetched = await self._documents.get(
            url,
            limit=limit,
            etag=stored.etag if stored else None,
            headers=self._headers,
            check=parse,
        )
        if fetched is None:
            assert stored is not None  # a 304 answers a request with an ETag
            if self._cache:
                await trio.to_thread.run_sync(self._cache.touch_document, url, time.time())
            return await _parsed(parse, stored.body)
        parsed = await _parsed(parse, fetched.body)
        if self._cache:
            kept = Document(fetched.body, fetched.etag, time.time(), fetched.final_url)
            await trio.to_thread.run_sync(self._cache.put_document, url, kept)
        return parsed

    async def _stored(self, url: str) -> Document | None:
        """The kept document, read in a thread: it may be large, and the store slow."""
        if self._cache is None:
            return None
        return await trio.to_thread.run_sync(self._cache.document, url)


class Once(Generic[T]):
    """`parse`, which is not called again for the same body: the check of a site cache's answer."""

    def __init__(self, parse: Callable[[bytes], T]) -> None:
        self._parse = parse
        self._last: tuple[bytes, T] | None = None

    def __call__(self, body: bytes) -> T:
        last = self._last
        if last is None or last[0] is not body:
            self._last = last = body, self._parse(body)
        return last[1]


async def _parsed(parse: Callable[[bytes], T], body: bytes) -> T:
    return await trio.to_thread.run_sync(parse, body)
