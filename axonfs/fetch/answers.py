"""Which answers the bytes of an object come from, where no chunk table ties their ranges together.

Below feed. Nodes of one source may have different ETags for the same bytes, or different bytes.
While all answers have one ETag their chunks are served as they land. From the first other ETag on
(`differ`) nothing is served before the digest of the whole was seen to match, and no ETag matters.
Where the digest is wrong the object is fetched again in one request, so that it is of one answer.
The same holds where no ETag tied the answers: a source may send none, or two sources have answered.

A site cache is one of several that may have the object, so a wrong digest is never its source's
fault alone; and all caches of a source have to have one ETag.

Trio thread only, but for `etag`, `note` and `took`, which transfers call.
"""

from __future__ import annotations

import logging

from axonfs.errors import CorruptError, EtagError
from axonfs.http_client import Cache
from axonfs.ranges import Range
from axonfs.store import StoredObject

log = logging.getLogger(__name__)

# How often an object whose answers differ is fetched again before its digest counts as wrong; once
# more of site caches, so that two of three may have wrong bytes.
MAX_RESTARTS = 2


class Answers:
    """The answers for one object in use."""

    def __init__(self, stored: StoredObject) -> None:
        self.differ: EtagError | None = None  # the first answer that was another one
        self.restarts = 0
        self._stored = stored
        self.punched = False  # bytes were given up that readers may have had
        self._etags: dict[str, str] = {}  # by URL
        self._taken: set[object] = set()  # one for each answer that gave bytes
        self._caches: set[Cache] = set()  # that gave bytes
        self._untied = stored.present_bytes > 0  # some are of an earlier process

    def etag(self, url: str) -> str | None:
        """The ETag that the next answer from `url` must have, if any."""
        return None if self.differ else self._etags.get(url)

    def note(self, url: str, etag: str) -> None:
        """An answer from `url` has this ETag."""
        self._etags.setdefault(url, etag)

    def took(self, url: str, etag: str | None, cache: Cache | None = None) -> None:
        """Bytes are taken of an answer from `url`, or from a cache in its place."""
        self._taken.add((url, etag) if etag else object())
        if cache is not None:
            self._caches.add(cache)

    def mix(self, other: EtagError) -> bool:
        """Take any answer from here on, and have the digest decide.

        False where it could not decide about bytes that were given up.
        """
        if self.punched:
            other.hint = "its servers differ, and what was read of it is gone: open it again"
        elif self.differ is None:
            self.differ = other
            self._stored.presence.watcher.cleared(Range(0, self._stored.count))
        return self.differ is not None

    def undecided(self, fault: str | None) -> EtagError:
        """The error for readers if the disk does not take the object that has to be compared."""
        assert self.differ is not None
        what = f"{self.differ.what}, and the disk does not take it to be compared"
        return EtagError(what, source=self.differ.source, hint=fault)

    @property
    def final(self) -> bool:
        """Whether a wrong digest is the source's fault, rather than that of several answers."""
        several = self.differ or self._untied or len(self._taken) > 1 or self._caches
        return self.restarts >= MAX_RESTARTS + bool(self._caches) or not several

    @property
    def one(self) -> bool:
        """Whether the object is to come in one answer."""
        return self.restarts > 0

    def begin_again(self) -> None:
        """The bytes from several answers were wrong and are gone."""
        if self._caches:
            self._blame()
        self.restarts += 1
        self.differ = self.differ or EtagError("its bytes are of several answers")
        self._untied = self.punched = False
        self._taken.clear()
        self._caches.clear()

    def _blame(self) -> None:
        """Name the caches whose bytes were wrong; where it can be only one, set it aside."""
        names = ", ".join(sorted(cache.name for cache in self._caches))
        error = CorruptError(
            f"object {self._stored.digest[:12]} has the wrong sha256", source=names
        )
        log.warning("%s; its bytes came through site caches", error)
        if len(self._caches) == 1:
            self._caches.pop().failed(error)
