"""Reading whole objects. Blocking."""

from __future__ import annotations

import time
from collections.abc import Callable

from axonfs.errors import AxonError, StoppedError
from axonfs.http_client.bodies import Bodies
from axonfs.http_client.location import Location
from axonfs.sources.near import read_near

Sink = Callable[[memoryview], object]


def read_body(
    bodies: Bodies,
    location: Location,
    size: int,
    sink: Sink,
    unit: int,
    stopped: Callable[[], bool],
    sha256: str | None = None,
) -> None:
    """Read an object from a server from its start to its end.

    Args:
        sink: called with each piece, in order. A piece ends at a multiple of `unit` or at the end.
        stopped: polled.
        sha256: of the object, by which site caches have it.

    Raises:
        AxonError: the server does not send it.
        StoppedError: `stopped` returned true.
    """
    done = failures = 0

    def take(offset: int, piece: memoryview) -> None:
        nonlocal done, failures
        if offset < done:  # a server without ranges sends all of it again
            return
        sink(piece)
        done, failures = offset + len(piece), 0

    while done < size:
        if stopped():
            raise StoppedError("stopped")
        try:
            read_near(
                bodies, location, sha256, done, size, size, take, unit=unit, cancelled=stopped
            )
        except AxonError as exc:
            failures += 1
            if not exc.transient or failures >= bodies.limits.attempts:
                raise
            time.sleep(bodies.limits.pause(failures, exc.retry_after))
