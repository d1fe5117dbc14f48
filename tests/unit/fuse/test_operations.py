"""Requests of the kernel as they are counted, and as listeners hear of them."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
import trio
import trio.testing

from axonfs.fuse import openreply
from axonfs.fuse.latencies import BOUNDS, Latency
from axonfs.fuse.operations import KEPT, PASSED_THROUGH, SERVED, Listener, Operations
from axonfs.fuse.programs import NOBODY, Program, Programs
from axonfs.vfs.journal import Known, KnownNode

MODEL, LOG = 20, 21


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Operations:
    """Operations without the extension, of two known files."""
    monkeypatch.setattr(openreply, "_extension", None)
    paths = {MODEL: ("a", "model.bin"), LOG: (".axonfs", "accesslog")}
    nodes = {inode: KnownNode(path, 1) for inode, path in paths.items()}
    return Operations(Known(nodes), silent=LOG)


@pytest.mark.parametrize(
    ("took", "bucket"),
    [(0, 0), (16_000, 0), (16_001, 1), (32_000, 1), (1 << 62, len(BOUNDS))]
    + [(1000 * bound, number) for number, bound in enumerate(BOUNDS)]
    + [(1000 * bound + 1, number + 1) for number, bound in enumerate(BOUNDS)],
)
def test_each_bucket_has_what_took_up_to_its_bound(took: int, bucket: int) -> None:
    latency = Latency()
    latency.note(took)
    assert latency.buckets.index(1) == bucket
    assert latency.report()["count"] == 1


class Context:
    pid = os.getpid()


def test_a_request_is_under_way_until_it_ends(found: Operations) -> None:
    request = found.begin("lookup", (MODEL, b"name\xff", Context()))
    (told,) = found.under_way()
    assert (told.operation, told.path, told.thread) == (
        "lookup",
        "a/model.bin/name\N{REPLACEMENT CHARACTER}",
        os.getpid(),
    )
    found.end(request, errno.ENOENT)
    assert found.under_way() == []
    assert found.statistics()["lookup"]["errors"] == {"ENOENT": 1}


def test_an_open_that_fails_before_its_kind_is_known_hides_no_kind(found: Operations) -> None:
    """The counters that are made of kinds would begin again."""
    for kind in (SERVED, "", PASSED_THROUGH, SERVED):
        request = found.begin("open", (MODEL, 0, Context()))
        request.kind = kind
        found.end(request, 0 if kind else errno.EROFS)
    opens = found.statistics()["open"]
    assert opens["count"] == 4
    assert {kind: row["count"] for kind, row in opens["kinds"].items()} == {
        PASSED_THROUGH: 1,
        SERVED: 2,
    }


def test_a_request_for_the_access_log_leaves_no_trace(found: Operations) -> None:
    request = found.begin("getattr", (LOG, Context()))
    assert found.under_way() == []
    found.end(request)
    assert found.statistics() == {}


async def test_a_listener_hears_until_it_leaves(
    found: Operations, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        with found.listen() as listener:
            found.end(found.begin("getattr", (MODEL, Context())), errno.EIO)
            found.drop(found.begin("readlink", (MODEL, Context())))
            await listener.wait()
            (told,), left_out = listener.take()
        found.end(found.begin("getattr", (MODEL, Context())))
        await trio.sleep(1)
        assert listener.take() == ([], 0)
        nursery.cancel_scope.cancel()
    assert (told.operation, told.path, told.errno) == ("getattr", "a/model.bin", errno.EIO)
    assert (told.pid, left_out) == (os.getpid(), 0)


def test_a_slow_listener_learns_how_many_it_missed() -> None:
    listener = Listener()
    assert not listener
    batch: list[Any] = list(range(KEPT + 7))
    listener.tell(batch[:10], 2)
    listener.tell(batch[10:], 0)
    some, left_out = listener.take(3)
    assert list(some) == batch[:3]
    assert left_out == 9
    rest, left_out = listener.take()
    assert (len(rest), left_out) == (KEPT - 3, 0)


def test_programs_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Programs()
    mine = programs.of(os.getpid())
    assert mine.pid == os.getpid()
    assert mine.name
    assert programs.of(0) == NOBODY
    gone = 1 << 22  # above the highest pid
    assert programs.of(gone) == Program(gone, "")
    assert BOUNDS[-1] == 1 << 27
