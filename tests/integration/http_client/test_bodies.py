"""Bodies against an origin that lies, stalls and hangs up."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from axonfs.errors import (
    AccessDeniedError,
    AxonError,
    ChangedError,
    DeadlineError,
    EtagError,
    UnavailableError,
    VanishedError,
)
from axonfs.http_client import Bodies, CancelledReadError, Limits, Location
from tests.integration.http_client.conftest import DATA, DIRECT, FAST, SIZE, UNIT, read
from tests.support import faulty
from tests.support.faulty_origin import FaultyOrigin


@pytest.mark.parametrize(
    ("start", "stop"), [(0, UNIT), (UNIT, 4 * UNIT), (10 * UNIT, SIZE), (0, SIZE)]
)
def test_a_range_arrives_unit_by_unit(
    bodies: Bodies, origin: FaultyOrigin, start: int, stop: int
) -> None:
    taken = read(bodies, origin, start, stop)
    assert taken.offsets == list(range(start, stop, UNIT))
    assert taken.bytes == DATA[start:stop]
    (seen,) = origin.requests
    assert seen.headers["range"] == f"bytes={start}-{stop - 1}"
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.headers["user-agent"].startswith("axonfs/")


def test_a_range_that_begins_within_a_unit(bodies: Bodies, origin: FaultyOrigin) -> None:
    taken = read(bodies, origin, UNIT + 7, 3 * UNIT)
    assert taken.offsets == [UNIT + 7, 2 * UNIT]
    assert taken.bytes == DATA[UNIT + 7 : 3 * UNIT]


@pytest.mark.parametrize("fault", [faulty.behave, faulty.chunked, faulty.without_length])
def test_every_framing_of_a_body(bodies: Bodies, origin: FaultyOrigin, fault: faulty.Fault) -> None:
    origin.plan(fault, faulty.behave)
    assert read(bodies, origin, UNIT, 3 * UNIT).bytes == DATA[UNIT : 3 * UNIT]
    assert read(bodies, origin).bytes == DATA


def test_ranges_that_are_empty_or_go_past_the_end_are_a_bug(
    bodies: Bodies, origin: FaultyOrigin
) -> None:
    for start, stop in [(-1, UNIT), (UNIT, UNIT), (0, SIZE + 1)]:
        with pytest.raises(ValueError, match="not in an object"):
            read(bodies, origin, start, stop)
    assert origin.requests == []


@pytest.mark.parametrize("framing", [faulty.behave, faulty.without_length, faulty.chunked])
def test_a_server_without_ranges_is_read_from_the_start(
    bodies: Bodies, origin: FaultyOrigin, framing: faulty.Fault
) -> None:
    def fault(exchange: faulty.Exchange) -> None:
        faulty.ignore_range(exchange)
        framing(exchange)

    origin.plan(fault)
    taken = read(bodies, origin, 2 * UNIT, 3 * UNIT)
    assert taken.offsets == list(range(0, SIZE, UNIT))
    assert taken.bytes == DATA


def test_a_piece_has_the_units_that_arrive_at_once(bodies: Bodies, origin: FaultyOrigin) -> None:
    pieces: list[tuple[int, int]] = []
    location, most = Location(origin.url + "object"), 4 * UNIT + 1
    bodies.read(
        location, UNIT, SIZE, SIZE, lambda at, view: pieces.append((at, len(view))),
        unit=UNIT, most=most,
    )  # fmt: skip
    assert pieces == [(UNIT, 4 * UNIT), (5 * UNIT, 4 * UNIT), (9 * UNIT, SIZE - 9 * UNIT)]


@pytest.mark.parametrize(("more", "moment"), [(10, 0.05), (10, 0.01), (0, 0.01)])
def test_a_piece_does_not_wait_for_more_than_its_units(
    bodies: Bodies, origin: FaultyOrigin, more: int, moment: float
) -> None:
    taken, stopped = bytearray(), threading.Event()

    def sink(at: int, view: memoryview) -> None:
        assert at == len(taken)
        taken.extend(view)
        assert len(taken) % UNIT == 0 or len(taken) == SIZE
        stopped.set()

    def fault(exchange: faulty.Exchange) -> None:
        exchange.head()
        exchange.write(DATA[: 3 * UNIT + more])
        assert stopped.wait(5)
        exchange.write(DATA[3 * UNIT + more :])
        exchange.answered = True

    origin.plan(fault)
    location = Location(origin.url + "object")
    bodies.read(location, 0, SIZE, SIZE, sink, unit=UNIT, most=SIZE, moment=moment)
    assert taken == DATA


def test_a_complete_unit_does_not_wait_for_the_next_share(
    bodies: Bodies, origin: FaultyOrigin
) -> None:
    taken, shares = bytearray(), list[int]()

    def share(most: int) -> int:
        assert len(taken) == sum(shares)
        time.sleep(0.005)  # as with a low limit
        shares.append(most)
        return most

    bodies.read(
        Location(origin.url + "object"), 0, SIZE, SIZE, lambda _, view: taken.extend(view),
        unit=UNIT, most=SIZE, moment=0.04, share=share,
    )  # fmt: skip
    assert taken == DATA


def test_a_flipped_bit_is_the_caller_s_to_find(bodies: Bodies, origin: FaultyOrigin) -> None:
    origin.plan(faulty.flip)
    taken = read(bodies, origin)
    assert sum(one != other for one, other in zip(taken.bytes, DATA, strict=True)) == 1


def test_a_sink_that_raises_gets_its_own_error_and_no_more(
    bodies: Bodies, origin: FaultyOrigin
) -> None:
    def sink(_offset: int, _view: memoryview) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        bodies.read(Location(origin.url + "object"), 0, SIZE, SIZE, sink, unit=UNIT)
    read(bodies, origin, 0, UNIT)
    # Half a body was left on the first connection, so the second request has one of its own.
    assert [seen.connection for seen in origin.requests] == [1, 2]


def test_a_slow_sink_is_not_a_slow_server(bodies: Bodies, origin: FaultyOrigin) -> None:
    taken = bytearray()

    def sink(_offset: int, view: memoryview) -> None:
        time.sleep(FAST.deadline / 3)
        taken.extend(view)

    bodies.read(Location(origin.url + "object"), 0, 5 * UNIT, SIZE, sink, unit=UNIT)
    assert bytes(taken) == DATA[: 5 * UNIT]


def test_a_body_is_read_in_any_pieces_and_at_any_pace(bodies: Bodies, origin: FaultyOrigin) -> None:
    """The reader's time is not the server's."""
    view, at = memoryview(bytearray(SIZE)), UNIT
    with bodies.open(Location(origin.url + "object"), UNIT, SIZE) as reading:
        for size in (1, 999, 5 * UNIT, SIZE - 6 * UNIT - 1000):
            time.sleep(FAST.deadline / 2)
            reading.fill(view[at : at + size], at)
            at += size
    assert view[UNIT:] == DATA[UNIT:]
    assert read(bodies, origin, 0, UNIT).bytes == DATA[:UNIT]
    assert [seen.connection for seen in origin.requests] == [1, 1]


def test_a_body_from_a_server_without_ranges_begins_where_it_should(
    bodies: Bodies, origin: FaultyOrigin
) -> None:
    origin.plan(faulty.ignore_range)
    view = memoryview(bytearray(UNIT))
    with bodies.open(Location(origin.url + "object"), 3 * UNIT, SIZE) as reading:
        assert reading.whole
        reading.fill(view, 3 * UNIT)
        assert view == DATA[3 * UNIT : 4 * UNIT]
        reading.hang_up()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (faulty.short, UnavailableError),
        (faulty.reset_within, UnavailableError),
        (faulty.stall_within, UnavailableError),
        (faulty.drip(0.02), DeadlineError),
    ],
)
def test_a_body_that_breaks_off(
    bodies: Bodies, origin: FaultyOrigin, fault: faulty.Fault, kind: type[AxonError]
) -> None:
    origin.plan(fault)
    location, view = Location(origin.url + "object"), memoryview(bytearray(SIZE))
    with pytest.raises(AxonError) as caught, bodies.open(location, 0, SIZE) as reading:
        reading.fill(view, 0)
    assert type(caught.value) is kind
    assert caught.value.transient
    assert f"(from {origin.url}object)" in str(caught.value)
    assert read(bodies, origin).bytes == DATA
    assert origin.requests[-1].connection == 2


def test_a_cancelled_body_raises(bodies: Bodies, origin: FaultyOrigin) -> None:
    origin.plan(faulty.stall_within)
    ended = threading.Event()
    location, view = Location(origin.url + "object"), memoryview(bytearray(SIZE))
    with bodies.open(location, 0, SIZE, cancelled=ended.is_set) as reading:
        ended.set()
        with pytest.raises(CancelledReadError):
            reading.fill(view, 0)
        reading.hang_up()
    with pytest.raises(CancelledReadError):
        bodies.open(location, 0, SIZE, cancelled=ended.is_set)


def test_a_connection_that_was_kept_is_not_closed_when_the_next_answer_fails(
    bodies: Bodies, origin: FaultyOrigin
) -> None:
    """By then it may serve another read."""

    def less(exchange: faulty.Exchange) -> None:
        exchange.body = exchange.body[: 2 * UNIT]
        exchange.headers["Content-Length"] = str(2 * UNIT)
        exchange.headers["Content-Range"] = f"bytes 0-{2 * UNIT - 1}/{SIZE}"

    origin.plan(less, faulty.status(503))
    with pytest.raises(UnavailableError):
        read(bodies, origin)
    assert read(bodies, origin).bytes == DATA
    assert {seen.connection for seen in origin.requests} == {1}


FAULTS: list[tuple[faulty.Fault, type[AxonError], bool]] = [
    (faulty.status(401), AccessDeniedError, False),
    (faulty.status(403), AccessDeniedError, False),
    (faulty.status(404), VanishedError, False),
    (faulty.status(410), VanishedError, False),
    (faulty.status(416), ChangedError, False),
    (faulty.status(418), UnavailableError, False),
    (faulty.status(204), UnavailableError, True),
    (faulty.status(429), UnavailableError, True),
    (faulty.status(500), UnavailableError, True),
    (faulty.status(503), UnavailableError, True),
    (faulty.status(302), UnavailableError, False),
    (faulty.redirect("file:///etc/passwd"), UnavailableError, False),
    (faulty.changed_etag, EtagError, False),
    (faulty.changed_size, ChangedError, False),
    (faulty.wrong_range, UnavailableError, True),
    (faulty.unreadable_range, UnavailableError, True),
    (faulty.long_length, UnavailableError, True),
    (faulty.long, UnavailableError, True),
    (faulty.short, UnavailableError, True),
    (faulty.reset_before, UnavailableError, True),
    (faulty.reset_within, UnavailableError, True),
    (faulty.hang_up_before, UnavailableError, True),
    (faulty.garbage, UnavailableError, True),
    (faulty.stall_before, UnavailableError, True),
    (faulty.stall_within, UnavailableError, True),
    (faulty.drip(0.02), DeadlineError, True),
    (faulty.drip_headers(0.02), DeadlineError, True),
]


@pytest.mark.parametrize(("fault", "kind", "transient"), FAULTS)
def test_a_fault_is_one_error_after_one_attempt(
    bodies: Bodies,
    origin: FaultyOrigin,
    fault: faulty.Fault,
    kind: type[AxonError],
    transient: bool,
) -> None:
    location = Location(f"{origin.url}object?sig=secret", etag=etag_of(bodies, origin))
    origin.requests.clear()
    bodies.close()  # a new connection, so that nothing is asked again on a stale one
    origin.plan(fault)
    started = time.monotonic()
    with pytest.raises(AxonError) as caught:
        read(bodies, origin, UNIT, 3 * UNIT, location=location)
    assert type(caught.value) is kind
    assert caught.value.transient is transient
    assert f"(from {origin.url}object?…)" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(origin.requests) == 1
    assert time.monotonic() - started < FAST.deadline + 1
    assert read(bodies, origin).bytes == DATA  # and the next read is none the worse


def etag_of(bodies: Bodies, origin: FaultyOrigin) -> str:
    """The ETag that the origin gives the object, learnt as a hub's listing would tell it."""
    etags: list[str] = []
    origin.plan(lambda exchange: etags.append(exchange.headers["ETag"]))
    read(bodies, origin, 0, UNIT)
    return etags[0]


def test_retry_after_is_passed_on(bodies: Bodies, origin: FaultyOrigin) -> None:
    origin.plan(faulty.status(429, Retry_After="7"), faulty.status(503, Retry_After="86400"))
    for seconds in (7, 60):
        with pytest.raises(UnavailableError) as caught:
            read(bodies, origin)
        assert caught.value.retry_after == seconds


def test_a_refused_connection(bodies: Bodies, origin: FaultyOrigin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UnavailableError, match="refused") as caught:
        read(bodies, origin, location=Location(f"http://127.0.0.1:{port}/x"))
    assert caught.value.transient


def test_a_name_that_does_not_resolve(bodies: Bodies, origin: FaultyOrigin) -> None:
    with pytest.raises(UnavailableError, match="does not resolve") as caught:
        read(bodies, origin, location=Location("http://nowhere.invalid/x"))
    assert caught.value.transient


@pytest.mark.parametrize("fault", [faulty.stall_before, faulty.stall_within])
def test_silence_is_called_silence(origin: FaultyOrigin, fault: faulty.Fault) -> None:
    origin.plan(fault)
    with (
        Bodies(Limits(first_byte=0.5, stall=0.5), routes=DIRECT) as bodies,
        pytest.raises(UnavailableError, match=r"received nothing for 0\.5 s"),
    ):
        read(bodies, origin)


@pytest.mark.parametrize("fault", [faulty.stall_before, faulty.stall_within, faulty.drip(0.01)])
def test_a_cancelled_read_stops_soon(origin: FaultyOrigin, fault: faulty.Fault) -> None:
    origin.plan(fault)
    cancel = threading.Event()
    timer = threading.Timer(0.1, cancel.set)
    with Bodies(Limits(), routes=DIRECT) as bodies:
        timer.start()
        started = time.monotonic()
        taken = read(bodies, origin, cancelled=cancel.is_set)
        assert time.monotonic() - started < 1  # of the 30 s that it may stall
    timer.join()
    assert len(taken.bytes) < SIZE


def test_a_read_that_is_cancelled_at_once_asks_for_nothing(
    bodies: Bodies, origin: FaultyOrigin
) -> None:
    assert read(bodies, origin, cancelled=lambda: True).offsets == []
    assert origin.requests == []


@pytest.mark.parametrize("seed", [1, 2])
def test_any_mix_of_faults_ends_in_bytes_or_an_error(
    bodies: Bodies, origin: FaultyOrigin, seed: int
) -> None:
    plan = faulty.chaos(seed, [fault for fault, _, _ in FAULTS[:23]], 0.5)
    origin.plan(*(next(plan) for _ in range(60)))
    outcomes = {"bytes": 0, "error": 0}
    for _ in range(60):
        try:
            assert read(bodies, origin, 0, 2 * UNIT).bytes == DATA[: 2 * UNIT]
            outcomes["bytes"] += 1
        except AxonError:
            outcomes["error"] += 1
    assert outcomes["bytes"] > 10
    assert outcomes["error"] > 10
