"""Counts what a server answered, for its metrics.

Below handler.py and writes.py, which report each answer and each change. Any thread.
"""

from __future__ import annotations

import threading
from collections import Counter

from axonfs.observe.family import Distribution, Family, family

METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})
OTHER = "other"
_TOOK = "From the first byte of requests to the last of their answers."


class Counts:
    """What one server did since it began."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = Counter[tuple[str, str]]()
        self._seconds: dict[str, float] = {}
        self._changes = Counter[str]()
        self._sent = self._received = self._refused_tokens = self._refused_connections = 0

    def answered(
        self, command: str | None, status: int, seconds: float, sent: int, received: int
    ) -> None:
        """Count an answer, the bytes of its body and of the request's."""
        method = command if command and command in METHODS else OTHER
        with self._lock:
            self._requests[method, str(status)] += 1
            self._seconds[method] = self._seconds.get(method, 0.0) + seconds
            self._sent += sent
            self._received += received

    def changed(self, what: str) -> None:
        """Count a change of the registry."""
        with self._lock:
            self._changes[what] += 1

    def refused_token(self) -> None:
        """Count a request with a token that is not valid."""
        with self._lock:
            self._refused_tokens += 1

    def refused_connection(self) -> None:
        """Count a connection that found all others in use."""
        with self._lock:
            self._refused_connections += 1

    def families(self, connections: int, most: int, *, readable: bool) -> list[Family]:
        """The metrics of the server.

        Args:
            connections, most: how many are open, and how many may be.
            readable: whether the registry's directory can be read.
        """
        with self._lock:
            requests, changes = dict(self._requests), dict(self._changes)
            took = {method: Distribution(0, seconds) for method, seconds in self._seconds.items()}
            figures = self._sent, self._received, self._refused_tokens, self._refused_connections
        for (method, _), number in requests.items():
            took[method] += Distribution(number)
        sent, received, tokens, refused = figures
        flag = int(readable)
        return [
            family("gauge", "registry_readable", "1 if the directory can be read.", flag),
            family("counter", "registry_requests", "Answers.", requests, "method", "status"),
            family("summary", "registry_request_duration_seconds", _TOOK, took, "method"),
            family("counter", "registry_sent_bytes", "Bytes of bodies that were sent.", sent),
            family("counter", "registry_received_bytes", "Bytes of uploads that came.", received),
            family("counter", "registry_changes", "Changes by publishers.", changes, "change"),
            family("counter", "registry_refused_tokens", "Requests with invalid tokens.", tokens),
            family("counter", "registry_refused_connections", "Over the limit.", refused),
            family("gauge", "registry_connections", "Open connections.", connections),
            family("gauge", "registry_connections_limit", "How many may be open.", most),
        ]
