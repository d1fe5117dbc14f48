"""The thread that asks a mount goes on whatever befalls it."""

from __future__ import annotations

import errno
import threading
from typing import Any, cast

from axonfs.cli.mount_state import LiveState, State
from axonfs.cli.top.poller import Poller
from axonfs.errors import UnavailableError


class Mount:
    """Answers after some faults."""

    def __init__(self) -> None:
        self.faults = [OSError(errno.EMFILE, "Too many open files"), UnavailableError("it hangs")]
        self.whys: list[str] = []
        self.answered = threading.Event()
        self.poller = Poller(cast(LiveState, self), 0.01)

    def read(self) -> State:
        self.whys.append(self.poller.answer.fault)
        if self.faults:
            raise self.faults.pop(0)
        self.answered.set()
        return cast(dict[str, Any], {"version": "1"})


def test_faults_are_told_and_the_next_answer_counts() -> None:
    mount = Mount()
    mount.poller.start()
    assert mount.answered.wait(20)
    mount.poller.stop()
    mount.poller.join(20)
    assert mount.whys[1].startswith("the system refused: Too many open files")
    assert mount.whys[2] == "it hangs"
    assert mount.poller.answer.state == {"version": "1"}
    assert mount.poller.trouble() == ""
