"""Pins that volumes ask for: made in threads of their own, and dropped when no volume needs them.

A call of the kubelet may end long before a pin is complete; the pin goes on, and the next call
finds it. Each version has one thread at a time, which does what the records say (records.py).
Any thread may call.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

from axonfs.call import Event
from axonfs.csi.mount import NodeMount
from axonfs.csi.records import Records
from axonfs.csi.refusal import RefusedError
from axonfs.errors import AxonError, UnavailableError
from axonfs.units import size

log = logging.getLogger(__name__)

# Seconds between two tries while the mount or a source does not answer; doubling.
PAUSE_MIN, PAUSE_MAX = 1.0, 60.0


@dataclass
class _Work:
    """What a thread does for one version. `fault` is why its last try failed."""

    ended: threading.Event = field(default_factory=threading.Event)
    changed: threading.Event = field(default_factory=threading.Event)  # the records have
    fault: Exception | None = None
    local: int = 0
    size: int = 0


class _UnneededError(Exception):
    """The last volume that needed the pin is gone."""


class Pins:
    """The pins of this plugin."""

    def __init__(self, mount: NodeMount, records: Records) -> None:
        self._mount = mount
        self._records = records
        self._lock = threading.Lock()
        self._under_way: dict[str, _Work] = {}
        self._complete: set[str] = set()

    @property
    def under_way(self) -> int:
        """The number of versions that are being pinned or unpinned."""
        with self._lock:
            return len(self._under_way)

    def want(self, spec: str) -> None:
        """Have a version pinned, which a record asks for."""
        with self._lock:
            if spec in self._complete and spec not in self._under_way:
                return
        self._begin(spec)

    def wait(self, spec: str, seconds: float) -> str | None:
        """Wait until a version is pinned and complete; how far it is, if it is not by then.

        Raises:
            AxonError: it cannot be pinned.
        """
        with self._lock:
            work = self._under_way.get(spec)
        if work is None or work.ended.wait(seconds):
            if work is not None and work.fault is not None:
                raise work.fault
            return None if spec in self._complete else "its pin has ended"
        far = f"{size(work.local)} of {size(work.size)} are local"
        return f"{far}; the last try failed: {work.fault}" if work.fault else far

    def sweep(self) -> None:
        """Drop the pins that no record asks for any more. The plugin made them, or they stay."""
        for spec in self._records.unused():
            self._begin(spec)

    def _begin(self, spec: str) -> None:
        with self._lock:
            if (work := self._under_way.get(spec)) is not None:
                work.changed.set()
                return
            self._under_way[spec] = work = _Work()
        args = (spec, work)
        threading.Thread(target=self._run, args=args, name=f"pin {spec}", daemon=True).start()

    def _run(self, spec: str, work: _Work) -> None:
        pause = PAUSE_MIN
        while True:
            work.changed.clear()
            try:
                self._settle(spec, work)
                work.fault, pause = None, PAUSE_MIN
            except _UnneededError:
                continue
            except (RefusedError, UnavailableError) as exc:  # the next try goes on where it was
                log.warning("%s: %s", spec, exc)
                work.fault = exc
                work.changed.wait(pause)
                pause = min(2 * pause, PAUSE_MAX)
                continue
            except Exception as exc:
                log.warning("%s cannot be pinned: %s", spec, exc)
                work.fault = exc
            with self._lock:
                if not work.changed.is_set():
                    del self._under_way[spec]
                    break
        work.ended.set()

    def _settle(self, spec: str, work: _Work) -> None:
        """Pin or unpin the version once, as the records say."""
        if spec not in self._records.pinned():
            self._complete.discard(spec)
            if spec in self._records.owned():
                self._unpin(spec)
                self._records.disown(spec)
        elif spec not in self._complete:
            present = self._mount.version(spec)["pinned"]
            if not present:  # else it may be someone else's pin, who decides when it ends
                self._records.own(spec)
            if present != "complete":
                request = {"op": "pin", "specs": [spec]}
                self._mount.ask(request, lambda event: self._note(spec, work, event))
            self._complete.add(spec)

    def _unpin(self, spec: str) -> None:
        try:
            self._mount.ask({"op": "unpin", "specs": [spec]})
        except UnavailableError:
            raise
        except AxonError as exc:  # someone has unpinned it
            log.info("%s: %s", spec, exc)

    def _note(self, spec: str, work: _Work, event: Event) -> None:
        if event.get("event") == "progress":
            work.local, work.size = int(event.get("done") or 0), int(event.get("total") or 0)
        if work.changed.is_set():
            work.changed.clear()
            if spec not in self._records.pinned():
                raise _UnneededError
