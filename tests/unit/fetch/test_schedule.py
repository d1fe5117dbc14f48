"""Which job runs next: by priority, within the streams and the bytes under way that are allowed."""

from typing import Any, cast

from axonfs.fetch.concurrency import FIRST
from axonfs.fetch.download import Download, Job, Priority
from axonfs.fetch.lane import Group, Lane
from axonfs.fetch.schedule import IN_FLIGHT_BYTES, RESERVED_STREAMS, Schedule
from axonfs.http_client import Pauses
from axonfs.ranges import Range

MIB = 1 << 20


class Stored:
    """As much of an object as a job asks for: nothing of it is local."""

    def __init__(self, chunk_size: int) -> None:
        self.chunk_size = chunk_size

    def missing(self, start: int, stop: int) -> list[Range]:
        return [Range(start, stop)] if start < stop else []


class Fake:
    """A download whose jobs may always start."""

    def __init__(self, chunk_size: int = MIB) -> None:
        self.object: Any = Stored(chunk_size)
        self.local = self.object

    def may_start(self, _job: Job) -> bool:
        return True


def job(priority: Priority, *, size: int = 1, chunk_size: int = MIB) -> Job:
    return Job(cast(Download, Fake(chunk_size)), Range(0, size), priority)


def taken(schedule: Schedule) -> list[Job]:
    found = []
    while one := schedule.take():
        found.append(one)
    return found


def test_the_most_urgent_goes_first_and_equals_in_order() -> None:
    schedule = Schedule(16)
    jobs = [
        job(priority) for priority in (Priority.BACKGROUND, Priority.READAHEAD, Priority.DEMAND)
    ]
    second = job(Priority.DEMAND)
    for one in (*jobs, second):
        schedule.add(one)
    assert taken(schedule) == [jobs[2], second, jobs[1], jobs[0]]


def test_a_promoted_job_goes_behind_those_that_were_as_urgent_before() -> None:
    schedule = Schedule(16)
    late, urgent, other = (
        job(priority) for priority in (Priority.BACKGROUND, *[Priority.DEMAND] * 2)
    )
    for one in (late, urgent):
        schedule.add(one)
    schedule.promote(late, Priority.DEMAND)
    schedule.add(other)
    assert taken(schedule) == [urgent, late, other]
    assert late.priority is Priority.DEMAND


def test_demand_has_streams_that_bulk_work_never_takes() -> None:
    schedule = Schedule(16)
    for _ in range(20):
        schedule.add(job(Priority.BACKGROUND))
    assert len(taken(schedule)) == FIRST
    assert schedule.short_of_streams()
    for _ in range(20):
        schedule.add(job(Priority.DEMAND))
    assert len(taken(schedule)) == RESERVED_STREAMS


def test_one_stream_serves_everybody() -> None:
    schedule = Schedule(1)
    for priority in (Priority.BACKGROUND, Priority.DEMAND):
        schedule.add(job(priority))
    first = schedule.take()
    assert first is not None
    assert first.priority is Priority.DEMAND
    assert schedule.take() is None
    schedule.rest(first)
    assert [one.priority for one in taken(schedule)] == [Priority.BACKGROUND]


def test_bytes_under_way_bound_bulk_work_and_not_demand() -> None:
    schedule = Schedule(16)
    large = IN_FLIGHT_BYTES // 2
    for _ in range(FIRST):
        schedule.add(job(Priority.BACKGROUND, chunk_size=large))
    assert len(taken(schedule)) == 2
    assert schedule.in_flight_bytes == IN_FLIGHT_BYTES
    assert not schedule.short_of_streams()
    schedule.add(job(Priority.DEMAND, chunk_size=large))
    assert len(taken(schedule)) == 1


def test_lanes_of_one_source_share_the_streams_for_bulk_work() -> None:
    """A reader finds one in each lane nevertheless; what waits longest goes first."""
    group = Group(16)
    lanes = [Lane(None, 16, 60.0, Pauses()) for _ in range(3)]
    for lane in lanes:
        group.enter(lane)
    jobs = [job(Priority.READAHEAD) for _ in range(FIRST + 2)]
    for number, one in enumerate(jobs):
        one.queued = float(number)
        lanes[number % 3].schedule.add(one)
    started = list(iter(lanes[2].take, None))
    assert started == jobs[:FIRST], "in the order in which they came, in whatever lane"
    urgent = job(Priority.DEMAND)
    lanes[1].schedule.add(urgent)
    assert lanes[0].take() is urgent
    lanes[1].schedule.rest(urgent)
    lanes[0].schedule.rest(jobs[0])
    assert lanes[0].take() is jobs[FIRST], "a stream that is free again serves any lane"
    assert lanes[0].take() is None
