"""Which of a host's addresses to connect to: each in turn, and those that failed lately last.

Names of large origins have several addresses, each of which is another server or another path, and
the resolver gives them in nearly the same order every time. Any thread may call every method.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from axonfs.http_client.urls import Origin

# Seconds until an address that failed has its turn again. It is tried before that if all fail.
FAILED_SECONDS = 60.0
# Hosts and addresses to remember; beyond that all are forgotten.
MOST = 1024

Found = list[Any]  # as `getaddrinfo` gives them


class Addresses:
    """The addresses that were used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: dict[Origin, int] = {}
        self._failed: dict[Any, float] = {}

    def ordered(self, origin: Origin, found: Found, *, spread: bool) -> Found:
        """`found` in the order in which to try them.

        The addresses of the first one's family take turns, since the resolver puts the family
        first that has a route.

        Args:
            spread: whether they take turns.
        """
        with self._lock:
            turn = self._next_turn(origin) if spread else 0
            late = time.monotonic() - FAILED_SECONDS
            failed = {address for address, when in self._failed.items() if when > late}
        alike = [one for one in found if one[0] == found[0][0]]
        turn %= max(len(alike), 1)
        others = [one for one in found if one[0] != found[0][0]]
        return sorted([*alike[turn:], *alike[:turn], *others], key=lambda one: one[4] in failed)

    def _next_turn(self, origin: Origin) -> int:
        if len(self._turns) >= MOST:
            self._turns.clear()
        turn = self._turns.get(origin, 0)
        self._turns[origin] = turn + 1
        return turn

    def failed(self, address: Any) -> None:
        """Note that a connection to `address` failed."""
        with self._lock:
            if len(self._failed) >= MOST:
                self._failed.clear()
            self._failed[address] = time.monotonic()

    def connected(self, address: Any) -> None:
        """Note that a connection to `address` succeeded."""
        with self._lock:
            self._failed.pop(address, None)
