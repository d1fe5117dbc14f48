"""What is asked for anew is not answered by a question that was under way before."""

from __future__ import annotations

import threading
from pathlib import Path

import trio
from trio.testing import MockClock

from axonfs.catalog.memo import MIN_AGE, TTL
from axonfs.catalog.tree import Tree
from tests.support.faulty import Exchange
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import rig
from tests.support.registry import published

SIZES = {"weights.bin": 5000}
INDEX = "api/v1/index.json"


class Held:
    """A fault that answers with what there was when the question came, once `free` is set."""

    def __init__(self) -> None:
        self.asked, self.free = threading.Event(), threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        self.asked.set()
        self.free.wait(20)


async def listed(tree: Tree, *, fresh: bool = False) -> set[str]:
    return {listing.spec.version for listing in (await tree.catalog(fresh=fresh)).listings}


async def free_soon(held: Held) -> None:
    """Once the fresh question was asked, which waits for the answer to the first."""
    await trio.testing.wait_all_tasks_blocked(0.01)
    held.free.set()


async def test_a_fresh_question_is_not_answered_by_one_that_was_under_way(tmp_path: Path) -> None:
    registry = published(tmp_path, SIZES, spec="nlp/tiny@1.0.0")
    with FaultyOrigin(registry) as origin:
        held = Held()
        origin.plan(held, of=INDEX)
        async with rig(tmp_path / "cache", origin.url) as parts, trio.open_nursery() as nursery:
            nursery.start_soon(listed, parts.tree)
            await trio.to_thread.run_sync(held.asked.wait)
            published(tmp_path, SIZES, spec="nlp/tiny@1.1.0", seed=1)
            nursery.start_soon(free_soon, held)
            assert await listed(parts.tree, fresh=True) == {"1.0.0", "1.1.0"}
            assert await listed(parts.tree) == {"1.0.0", "1.1.0"}


async def test_a_fresh_question_is_not_answered_while_the_answer_is_asked_again(
    tmp_path: Path, clock: MockClock
) -> None:
    registry = published(tmp_path, SIZES, spec="nlp/tiny@1.0.0")
    with FaultyOrigin(registry) as origin:
        async with rig(tmp_path / "cache", origin.url) as parts:
            assert await listed(parts.tree) == {"1.0.0"}
            published(tmp_path, SIZES, spec="nlp/tiny@1.1.0", seed=1)
            clock.jump(TTL + MIN_AGE)
            assert await listed(parts.tree) == {"1.0.0"}  # asks again in the background
            assert await listed(parts.tree, fresh=True) == {"1.0.0", "1.1.0"}
