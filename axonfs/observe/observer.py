"""Watches one mount: gathers its metrics, keeps its counters, and answers scrapes and probes.

Made by the worker. Scrapes are answered in the listener's threads, which ask the trio thread for
the state and wait for it for a moment only; a worker whose event loop stands still says so.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import trio

from axonfs.errors import AxonError
from axonfs.observe import otlp, prometheus
from axonfs.observe.families import Facts, State, families_of, silent_families
from axonfs.observe.family import Family
from axonfs.observe.health import troubles
from axonfs.observe.listener import Listener, Page
from axonfs.observe.meters import Meters
from axonfs.observe.pulse import Pulse
from axonfs.store import DISK_FAULTS

log = logging.getLogger(__name__)

# Seconds between two saves of the counters, at the most; a worker that is killed loses as much.
SAVE_SECONDS = 5.0
# Seconds to wait for the event loop's answer; one that has been silent for so long is not asked.
PATIENCE = 2.0
# An event loop that has been silent for so long is not alive any more.
DEAD_SECONDS = 10.0
# Seconds until an address that could not be used is tried again.
AGAIN_SECONDS = 2.0


class Observer:
    """Watches the mount of this process.

    Args:
        nursery: runs its tasks.
        state: gives the live state; called in the trio thread.
        pins: counts pins by their state; called in other threads, and may block.
        cache: the cache directory.
        meters: descriptor of the file that keeps the counters.
        failed: whether this worker replaced one that failed.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        state: Callable[[], dict[str, Any]],
        pins: Callable[[], Mapping[str, int]],
        cache: Path,
        meters: int,
        *,
        failed: bool,
    ) -> None:
        self.ready = False  # whether the mount answers the kernel
        self.fault: str | None = None
        self._nursery = nursery
        self._state = state
        self._pins = pins
        self._cache = cache
        self._meters = Meters(meters if meters >= 0 else os.memfd_create("axonfs-meters"))
        self._failed = failed
        self._pulse = Pulse()
        self._lock = threading.Lock()
        self._over = False
        self._token = trio.lowlevel.current_trio_token()
        self._address: str | None = None
        self._listener: Listener | None = None
        self._sender: otlp.Sender | None = None
        self._trying = trio.CancelScope()

    @contextmanager
    def watching(self, address: str | None, *, first: bool) -> Iterator[None]:
        """Serve metrics at `address`, if there is one, and send them by OTLP, if the environment
        asks for it, until the block is left.

        Args:
            first: whether a fault ends the mount. A later worker tries again instead.

        Raises:
            AxonError: the address cannot be used, or a library is missing.
        """
        if address and first:
            prometheus.check_library()
            self._address, self._listener = address, Listener(address, self._pages())
        self._sender = otlp.sender(self.gather, self._meters.began)
        self._nursery.start_soon(self._pulse.run)
        self._nursery.start_soon(self._save_regularly)
        self.serve_at(address)
        try:
            yield
        finally:
            self._trying.cancel()
            self._end()
            self._close()
            if self._sender:
                self._sender.close()

    def _end(self) -> None:
        """Save the counters; from here on no thread uses the store."""
        if self._lock.acquire(timeout=PATIENCE):  # else the disk of the cache hangs
            self._over = True
            with _no_harm():
                if self._watched:
                    self._counted(self._state())
            self._lock.release()

    @property
    def _watched(self) -> bool:
        """Whether metrics are served or sent, so that their counters have to go on."""
        return bool(self._address or self._sender)

    def serve_at(self, address: str | None) -> None:
        """Serve metrics at another address from now on, or nowhere. A fault is logged, and the
        address tried again until it can be used."""
        if address == self._address:
            return
        self._trying.cancel()
        self._close()
        self._address, self.fault = address, None
        if address:
            self._trying = trio.CancelScope()
            self._nursery.start_soon(self._listen, address, self._trying)

    def _close(self) -> None:
        if self._listener:
            self._listener.close()
        self._listener = None

    def report(self) -> dict[str, Any]:
        """Where metrics are served, for `status`."""
        url = self._listener.url if self._listener else None
        return {"address": self._address, "url": url, "fault": self.fault}

    async def _listen(self, address: str, scope: trio.CancelScope) -> None:
        """Listen at `address`, now or later."""
        with scope:
            while True:
                try:
                    prometheus.check_library()
                    # Abandoned at the end: the look-up of a name may take minutes.
                    make = partial(self._make, address, scope)
                    await trio.to_thread.run_sync(make, abandon_on_cancel=True)
                    break
                except AxonError as exc:
                    if self.fault != str(exc):
                        log.warning("%s; the mount works without", exc)
                    self.fault = str(exc)
                    await trio.sleep(AGAIN_SECONDS)

    def _make(self, address: str, scope: trio.CancelScope) -> None:
        """Have metrics served at `address`. In a thread, which nobody may wait for any more."""
        trio.from_thread.run_sync(self._use, Listener(address, self._pages()), scope)

    def _use(self, listener: Listener, scope: trio.CancelScope) -> None:
        if scope.cancel_called:
            listener.close()
        else:
            self._listener, self.fault = listener, None

    async def _save_regularly(self) -> None:
        while True:
            await trio.sleep(SAVE_SECONDS)
            if self._watched:
                with _no_harm():
                    await trio.to_thread.run_sync(self.gather, abandon_on_cancel=True)

    def gather(self) -> list[Family]:
        """The metrics now; what can be said without the event loop while that does not answer. Not
        for the trio thread."""
        state = self._ask()
        if state is None:
            return silent_families(self._pulse.silent())
        if not self._lock.acquire(timeout=PATIENCE):  # another thread waits for the cache's disk
            return self._families(state, Facts(self._pulse.lag, self._failed))
        try:
            return silent_families(0.0) if self._over else self._counted(state)
        finally:
            self._lock.release()

    def _counted(self, state: State) -> list[Family]:
        """The metrics of a state, whose totals are saved. The caller holds the lock."""
        facts = Facts(self._pulse.lag, self._failed, self._pinned(), self._disk())
        families = self._families(state, facts)
        self._meters.save(families)
        return families

    def _families(self, state: State, facts: Facts) -> list[Family]:
        """The metrics of a state, with the totals of all workers."""
        return [one for one in self._meters.total(families_of(state, facts)) if one.samples]

    def _ask(self) -> State | None:
        """The state from the trio thread; None if it does not answer."""
        if self._pulse.silent() >= PATIENCE:  # a busy one may be late by less
            return None
        answer = queue.SimpleQueue[State | None]()
        try:
            self._token.run_sync_soon(self._answer, answer)
            return answer.get(timeout=PATIENCE)
        except (trio.RunFinishedError, queue.Empty):
            return None

    def _answer(self, answer: queue.SimpleQueue[State | None]) -> None:
        try:
            answer.put(self._state())
        except Exception:  # an exception here would end the mount
            log.exception("a bug in status; please report it")
            answer.put(None)

    def _pinned(self) -> Mapping[str, int] | None:
        try:
            return self._pins()
        except DISK_FAULTS:
            return None

    def _disk(self) -> tuple[int, int] | None:
        try:
            found = os.statvfs(self._cache)
        except OSError:
            return None
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize

    def _pages(self) -> dict[str, Callable[[Mapping[str, str]], Page]]:
        return {"/metrics": self._metrics, "/healthz": self._healthz, "/readyz": self._readyz}

    def _metrics(self, headers: Mapping[str, str]) -> Page:
        return prometheus.metrics_page(self.gather(), headers)

    def _healthz(self, headers: Mapping[str, str]) -> Page:
        silent = self._pulse.silent()
        if silent < DEAD_SECONDS:
            return Page(b"ok\n")
        return _unavailable(f"the mount's event loop has not answered for {silent:.0f} s")

    def _readyz(self, headers: Mapping[str, str]) -> Page:
        if not self.ready:
            return _unavailable("the mount has not begun to answer")
        state = self._ask()
        if state is None:
            silent = self._pulse.silent()
            return _unavailable(f"the mount's event loop has not answered for {silent:.0f} s")
        lines = ["ok", *map(str, troubles(state))]
        return Page(("\n".join(lines) + "\n").encode(errors="replace"))


@contextmanager
def _no_harm() -> Iterator[None]:
    """A block whose bugs are logged, and end no mount."""
    try:
        yield
    except Exception:
        log.exception("a bug in metrics; please report it")


def _unavailable(why: str) -> Page:
    return Page(f"503 {why}\n".encode(), HTTPStatus.SERVICE_UNAVAILABLE)
