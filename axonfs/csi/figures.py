"""What the plugin counts, as metrics. Any thread."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict

from axonfs.observe.family import Family, family


class Figures:
    """Calls by method and code, and the seconds that they took."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[tuple[str, str]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def called(self, method: str, code: str, seconds: float) -> None:
        with self._lock:
            self._calls[method, code] += 1
            self._seconds[method] += seconds

    def families(self, *, volumes: int, pins: int, guarded: bool, ready: bool) -> list[Family]:
        """The metrics now."""
        with self._lock:
            calls, seconds = dict(self._calls), dict(self._seconds)
        return [
            family("counter", "csi_calls", "Calls of the kubelet.", calls, "method", "code"),
            family("counter", "csi_call_seconds", "Seconds in those calls.", seconds, "method"),
            family("gauge", "csi_volumes", "Targets that have a volume.", volumes),
            family("gauge", "csi_pins_under_way", "Pins that volumes wait for.", pins),
            family("gauge", "csi_guarded", _GUARDED, int(guarded)),
            family("gauge", "csi_mount_answers", "1 if the mount of the node answers.", int(ready)),
        ]


_GUARDED = "1 if this process has copies of the mount's descriptors, so that it outlives its own."
