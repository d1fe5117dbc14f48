"""One origin's share: its streams, its queue, and whether it stalls.

Between schedule and network, which has the lanes of all origins. Each origin (scheme, host, port)
has a lane, so jobs that wait for one that is silent take no stream from another. Trio thread only.
"""

from __future__ import annotations

import trio

from axonfs.fetch.schedule import Schedule
from axonfs.http_client import Origin, Stall


class Lane:
    """The jobs that ask one origin; `origin` is None for jobs that ask none.

    Args:
        streams: ranged GETs at a time.
        deadline: seconds without progress after which the origin stalls.
    """

    def __init__(self, origin: Origin | None, streams: int, deadline: float) -> None:
        self.origin = origin
        self.schedule = Schedule(streams)
        self.stall = Stall(deadline)
        self.passes = trio.CapacityLimiter(streams)  # threads that read packages

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits here."""
        busy = self.schedule.running or self.schedule.waiting or self.passes.borrowed_tokens
        return not busy
