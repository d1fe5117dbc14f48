"""The scrub: checks all local chunks regularly, to find damage on the disk before a reader does.

Above fetch, beside the evictor; the mount runs it. A round checks the objects in the order of their
digests at a limited rate, and pauses while there are reads or fetches. The index has its position,
so the next worker resumes there. After a boot no chunk counts as checked, so a new round begins at
once; it also makes complete files fit for passthrough again.

A bad chunk is dropped. If its object is pinned, or if the kernel reads its file itself, the chunk
is fetched again with the lowest priority. The bytes of such a file are overwritten, never cut.

Trio thread; the disk reads run in threads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from typing import Any

import trio

from axonfs.catalog.tree import Tree
from axonfs.errors import AxonError, shortages
from axonfs.fetch import Feed, Fetcher, Priority
from axonfs.ranges import runs
from axonfs.store import ScrubState, Store, StoredObject
from axonfs.units import counted

log = logging.getLogger(__name__)

# Between two rounds in one boot, in seconds.
ROUND_SECONDS = 24 * 3600.0
# Seconds without reads or fetches before it resumes.
QUIET_SECONDS = 1.0
# Bytes per step: at the usual rates a step takes some tenths of a second.
STEP_BYTES = 4 << 20
SAVE_SECONDS = 10.0
# Seconds until a failed fetch or disk read is retried.
RETRY_SECONDS = 60.0


class Scrub:
    """The scrub of one cache.

    Args:
        rate: bytes per second, 0 to disable it.
        quiet: seconds without a read before it resumes.
    """

    def __init__(
        self,
        store: Store,
        tree: Tree,
        fetcher: Fetcher,
        rate: int,
        *,
        quiet: float = QUIET_SECONDS,
    ) -> None:
        self._store = store
        self._tree = tree
        self._fetcher = fetcher
        self._rate = rate
        self._quiet = quiet
        self._state = ScrubState()
        self._saved = 0.0
        self._seen = -1
        self._doing = "off" if rate == 0 else "resting"
        self._lost: dict[str, set[int]] = {}  # bad chunks to fetch again, by digest

    def statistics(self) -> dict[str, Any]:
        """The state, and the figures of this round and of the last one, for `status`."""
        state = self._state
        return {
            "state": self._doing,
            "rate": self._rate,
            "began": state.began,
            "bytes": state.read,
            "bad": state.bad,
            "ended": state.ended,
            "last_bytes": state.last_read,
            "last_bad": state.last_bad,
            "owed": sum(map(len, self._lost.values())),
        }

    async def run(self, reads: Callable[[], int]) -> None:
        """Run rounds until cancelled.

        Args:
            reads: returns the number of reads so far; the scrub waits while it changes.
        """
        if self._rate == 0:
            return
        self._state = await self._kept_state()
        if self._state.boot != self._store.boot:
            ended, read, bad = self._state.ended, self._state.last_read, self._state.last_bad
            self._state = ScrubState(
                self._store.boot, ended=ended, last_read=read, last_bad=bad, began=time.time()
            )
        while True:
            await self._rest()
            try:
                with shortages():
                    await self._round(reads)
            except (AxonError, OSError) as exc:
                log.info("the scrub pauses: %s", exc)
                await trio.sleep(RETRY_SECONDS)

    async def _kept_state(self) -> ScrubState:
        """The state that an earlier worker saved; a new state if it cannot be read."""
        try:
            return await trio.to_thread.run_sync(self._store.scrub_state)
        except OSError as exc:
            self._store.health.failed(exc)
            return ScrubState()

    async def _rest(self) -> None:
        """Wait until the next round is due, or return at once to resume a round."""
        self._doing = "resting"
        while (
            not self._state.began and (left := self._state.ended + ROUND_SECONDS - time.time()) > 0
        ):
            await self._fetch_lost()
            await trio.sleep(min(left, RETRY_SECONDS))
        if not self._state.began:
            self._state = replace(self._state, began=time.time())

    async def _round(self, reads: Callable[[], int]) -> None:
        infos = await trio.to_thread.run_sync(self._store.infos)
        for key in sorted(info.digest for info in infos if info.present_bytes):
            if key >= self._state.key:
                await self._object(key, reads)
                await self._fetch_lost()
        state = self._state
        await self._save(
            ScrubState(state.boot, ended=time.time(), last_read=state.read, last_bad=state.bad)
        )
        log.debug("scrubbed %d bytes, %d chunks were bad", state.read, state.bad)

    async def _object(self, key: str, reads: Callable[[], int]) -> None:
        stored = await trio.to_thread.run_sync(self._store.known, key)
        if stored is None:
            return
        chunk = self._state.chunk if key == self._state.key else 0
        while chunk < stored.count:
            await self._wait_until_quiet(reads)
            began = trio.current_time()
            step = await trio.to_thread.run_sync(self._store.recheck, stored, chunk, STEP_BYTES)
            if step.wrong:
                await self._found(stored, step.wrong)
            chunk = stored.count if step.next is None else step.next
            read, bad = self._state.read + step.read, self._state.bad + len(step.wrong)
            self._state = replace(self._state, key=key, chunk=chunk, read=read, bad=bad)
            if trio.current_time() - self._saved > SAVE_SECONDS:
                await self._save(self._state)
            await trio.sleep(max(step.read / self._rate - (trio.current_time() - began), 0))

    async def _wait_until_quiet(self, reads: Callable[[], int]) -> None:
        """Wait until there were no fetches and reads for a while."""
        while self._fetcher.busy or self._seen != reads():
            self._doing = "waiting"
            self._seen = reads()
            await trio.sleep(self._quiet)
        self._doing = "checking"

    async def _save(self, state: ScrubState) -> None:
        self._state, self._saved = state, trio.current_time()
        await trio.to_thread.run_sync(self._store.put_scrub_state, state)

    async def _found(self, stored: StoredObject, wrong: Iterable[int]) -> None:
        wrong = set(wrong)
        what = f"{counted(len(wrong), 'chunk')} of object {stored.digest[:12]} damaged on the disk"
        pinned = await trio.to_thread.run_sync(self._store.pinned_digests)
        if not stored.frozen and stored.digest not in pinned:
            log.warning("%s; the next read fetches them again", what)
            return
        fate = "is offline" if self._fetcher.offline else "fetches them again"
        log.warning("%s; the object is pinned or passed through, and the mount %s", what, fate)
        await trio.to_thread.run_sync(self._store.unprove, stored.digest)
        self._lost.setdefault(stored.digest, set()).update(wrong)

    async def _fetch_lost(self) -> None:
        """Try to fetch the lost chunks of pinned and passed-through objects again."""
        if self._fetcher.offline:
            return
        for digest, chunks in list(self._lost.items()):
            try:
                await self._fetch_again(digest, chunks)
                del self._lost[digest]
            except (AxonError, OSError) as exc:
                log.info("cannot fetch chunks of object %s again yet: %s", digest[:12], exc)

    async def _fetch_again(self, digest: str, chunks: Iterable[int]) -> None:
        feed = await self._feed(digest)
        if feed is None:
            return  # neither pinned nor open any more
        with closing(feed):
            for run in runs(chunks):
                await feed.need(run, Priority.BACKGROUND)

    async def _feed(self, digest: str) -> Feed | None:
        """A feed of the object, through a reader's version or that of a pin; None without one."""
        for feed in self._fetcher.feeds():
            if feed.entry.digest == digest and feed.versions:
                return await self._fetcher.open(feed.versions[0], feed.entry)
        for pin in await trio.to_thread.run_sync(self._store.pins):
            if digest in pin.files:
                version = await self._tree.unchecked(pin.spec)
                for entry in version.manifest.files:
                    if entry.digest == digest:
                        return await self._fetcher.open(version, entry)
        return None
