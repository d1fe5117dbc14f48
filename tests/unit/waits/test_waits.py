"""What looks at waits, while it looks."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest
import trio
import trio.testing

from axonfs.fuse.operations import Operations
from axonfs.vfs.journal import Known
from axonfs.waits import Waits
from axonfs.waits.waits import INTERVAL


class Broken(Operations):
    """Fails a few times, as a bug in a sentence would."""

    looks = 0

    def under_way(self) -> list[Any]:
        self.looks += 1
        if self.looks < 4:
            raise KeyError("a bug")
        return super().under_way()


async def test_a_bug_ends_no_mount(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    operations = Broken(Known())
    nothing = cast(Any, lambda *_: None)
    waits = Waits(operations, nothing, nothing, nothing, nothing)
    with caplog.at_level(logging.ERROR, "axonfs"), trio.move_on_after(5.5 * INTERVAL):
        await waits.run()
    assert operations.looks == 5
    assert waits.report()["waits"] == []
    (line,) = caplog.messages
    assert line == "a bug in what explains waits; please report it"
