"""The lanes of all origins: which of them are forgotten."""

from __future__ import annotations

from typing import cast

from axonfs.fetch import network
from axonfs.fetch.bandwidth import Bandwidth
from axonfs.fetch.download import Download, Job, Priority
from axonfs.fetch.network import Network
from axonfs.http_client import Bodies, Limits, Origin, SiteCaches
from axonfs.ranges import Range


async def test_the_lane_of_a_job_that_rests_is_not_forgotten() -> None:
    """Else the job would wait in it for ever: the caches of a source start each other's jobs."""
    site = SiteCaches("http://source.example", ["http://cache.example"])
    (cache,) = site
    with Bodies(Limits()) as bodies:
        lanes = Network(bodies, Limits(), 16, Bandwidth(0))
        job = Job(cast(Download, None), Range(0, 1), Priority.DEMAND)
        lane = lanes.cache_lane(site, cache)
        lanes.enter(job, lane)
        for number in range(2 * network.MOST):
            lanes.lane(Origin("http", f"host{number}.example", 80))
        assert lane in lanes.lanes()
        assert lane.group is not None
        assert lane in lane.group.lanes
