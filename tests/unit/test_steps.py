"""Steps: what a task and its threads wait for, as others see it."""

from __future__ import annotations

import threading

import trio

from axonfs.steps import Cause, Step, here, outermost, trail


def said(task: object) -> list[str]:
    return [step.text for step in trail(outermost(task))]


async def test_steps_nest_over_threads_and_back() -> None:
    """From a task into a worker thread, and from there into a coroutine of the task."""
    task, seen = trio.lowlevel.current_task(), list[list[str]]()

    async def back() -> None:
        with Step(Cause.RETRYING, "pausing"):
            seen.append(said(task))

    def in_thread() -> None:
        with Step(Cause.CONNECTING, lambda: "connecting"):
            seen.append(said(task))
            trio.from_thread.run(back)
        seen.append(said(task))

    with Step(Cause.DOCUMENT, "asking"):
        await trio.to_thread.run_sync(in_thread)
    assert seen == [["asking", "connecting"], ["asking", "connecting", "pausing"], ["asking"]]
    assert outermost(task) is None


async def test_a_task_has_steps_of_its_own() -> None:
    """One that a task started within a step is no part of that step, unless it says so."""
    task, apart = trio.lowlevel.current_task(), list[trio.lowlevel.Task]()

    async def other(step: Step | None, *, task_status: trio.TaskStatus[None]) -> None:
        with Step(Cause.OTHER, "another", within=step):
            apart.append(trio.lowlevel.current_task())
            task_status.started()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        with Step(Cause.OTHER, "first"):
            await nursery.start(other, None)
            assert said(task) == ["first"]
            assert said(apart[0]) == ["another"]
            await nursery.start(other, here())
            assert said(task) == ["first", "another"]
            nursery.cancel_scope.cancel()
    assert said(apart[0]) == said(apart[1]) == []


async def test_who_waits_for_another_task_says_so() -> None:
    found = dict[str, Step]()
    with Step(Cause.OTHER, "waiting", on=lambda: found.get("theirs")) as mine:
        assert trail(mine) == [mine]
        found["theirs"] = Step(Cause.QUEUED, "in the queue", on=lambda: mine)
        assert [step.text for step in trail(mine)][:3] == ["waiting", "in the queue", "waiting"]
        assert len(trail(mine)) < 100  # they wait for each other


def test_a_thread_without_a_task_may_have_steps() -> None:
    seen = list[str]()

    def alone() -> None:
        with Step(Cause.CONNECTING, "looking up") as step:
            step.turn(Cause.FIRST_BYTE, "asking")
            seen.append(f"{step.cause} {step.text}")

    thread = threading.Thread(target=alone)
    thread.start()
    thread.join()
    assert seen == ["first_byte asking"]
