"""When the kernel is told to drop the pages of a file, and who waits for that."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from axonfs.fuse.pages import Pages


class Kernel:
    """Drops pages when it is let, and has some inodes open."""

    def __init__(self) -> None:
        self.dropped: list[int] = []
        self.open: set[int] = set()
        self.begun, self.let = trio.Event(), threading.Event()
        self._token = trio.lowlevel.current_trio_token()
        self.pages = Pages(lambda inode: inode in self.open, self._drop)

    def _drop(self, inode: int) -> None:
        self._token.run_sync_soon(self.begun.set)
        assert self.let.wait(10)
        self.dropped.append(inode)


async def test_an_open_waits_until_the_pages_are_dropped() -> None:
    kernel = Kernel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kernel.pages.run)
        kernel.pages.drop_soon(7)
        await kernel.begun.wait()
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.01):
            await kernel.pages.settled(7)
        await kernel.pages.settled(8)
        kernel.let.set()
        await kernel.pages.settled(7)
        assert kernel.dropped == [7]
        nursery.cancel_scope.cancel()


async def test_nothing_is_dropped_of_a_file_that_was_opened_meanwhile() -> None:
    kernel = Kernel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kernel.pages.run)
        kernel.pages.drop_soon(7)
        await kernel.begun.wait()
        for inode in (8, 9):  # their turns come after 7
            kernel.pages.drop_soon(inode)
        await trio.testing.wait_all_tasks_blocked()
        kernel.open.add(8)
        kernel.let.set()
        with trio.fail_after(10):
            while kernel.dropped != [7, 9]:  # noqa: ASYNC110 - threads set no event of ours
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_an_inode_that_the_kernel_forgot_is_no_failure() -> None:
    asked = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def refuse(inode: int) -> None:
        token.run_sync_soon(asked.set)
        raise FileNotFoundError

    pages = Pages(lambda inode: False, refuse)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pages.run)
        pages.drop_soon(7)
        await asked.wait()
        await pages.settled(7)
        nursery.cancel_scope.cancel()
