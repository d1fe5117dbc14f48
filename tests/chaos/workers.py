"""Kill and replace the worker of a mount, and what it holds: for tests that do this often."""

from __future__ import annotations

import os
import random
import select
import signal
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from axonfs.store import Store, StoredObject
from tests.mount.conftest import Mount, settled


def next_worker(mount: Mount, dead: int) -> int:
    """The pid of the worker after the one with the pid `dead`, whether it answers yet or not."""
    pid = mount.process.pid
    while True:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children and int(children[0]) != dead:
            return int(children[0])
        time.sleep(0.005)  # the start of the next worker has no event


class Killer:
    """Ends the worker of a mount over and over: SIGKILL, or `axonfs restart`'s SIGHUP.

    The holder lets workers that do not last wait longer and longer, and forgets that when its
    program is replaced; so no more than two are killed in a row.
    """

    def __init__(self, mount: Mount, chance: random.Random) -> None:
        self._mount = mount
        self._chance = chance
        self._in_a_row = 0
        self._last = 0
        self.kills = 0
        self.restarts = 0

    def strike(self) -> None:
        """One round, which ends when the old worker is gone."""
        if self._in_a_row == 2 or self._chance.random() < 0.2:
            self._end(self._mount.worker(), self._mount.process.pid, signal.SIGHUP)
            self._in_a_row = 0
            self.restarts += 1
            return
        # One that takes over is as mortal as one that answers.
        starting = self._in_a_row == 1 and self._chance.random() < 0.5
        worker = next_worker(self._mount, self._last) if starting else self._mount.worker()
        time.sleep(self._chance.uniform(0, 0.3))  # the moment is what is tried out
        self._end(worker, worker, signal.SIGKILL)
        self._in_a_row += 1
        self.kills += 1

    def _end(self, worker: int, target: int, number: signal.Signals) -> None:
        self._last = worker
        descriptor = os.pidfd_open(worker)
        os.kill(target, number)
        ended, _, _ = select.select([descriptor], [], [], 30)
        os.close(descriptor)
        assert ended, f"the worker does not end on {number.name}"


def check_log(mount: Mount) -> None:
    """Workers ended by our hand alone, and the log has no other complaint."""
    ours = ("was killed by SIGKILL",)
    assert [line for line in mount.complaints() if not any(part in line for part in ours)] == []


def is_idle(mount: Mount) -> bool:
    """Whether nothing is under way, nothing open and nothing passed through."""
    status = mount.status()
    busy = status["fetch"]["in_flight"] or status["fetch"]["queued"] or status["open"]
    return not (busy or status["connection"]["passed_through"])


def check_nothing_open(mount: Mount) -> None:
    """No handle outlives its reader, whichever worker it was that noted it."""
    settled(lambda: not mount.status()["open"])
    assert mount.status()["connection"]["passed_through"] == 0


def check_cache(cache: Path, plain: dict[str, bytes], chunk: int) -> int:
    """Open the index, compare all that it says is there; how many bytes that were.

    Args:
        plain: the right bytes by digest; objects that are not in it are left alone.
    """
    with closing(Store.open(cache)) as store:
        assert not list(cache.glob("*.unreadable"))
        known = filter(None, map(store.manifest, store.specs()))
        entries = [entry for stored in known for entry in stored.manifest.files]
        return sum(
            _check_object(store.object(entry), plain[entry.digest], chunk)
            for entry in entries
            if entry.digest in plain
        )


def _check_object(stored: StoredObject, whole: bytes, chunk: int) -> int:
    stored.hold()
    total = 0
    for number in range(stored.count):
        if stored.present(number, number + 1):
            want = whole[number * chunk : (number + 1) * chunk]
            assert os.pread(stored.opened(), len(want), number * chunk) == want
            total += len(want)
    stored.release()
    return total


@dataclass(frozen=True)
class Footprint:
    """What a process has open: descriptors by kind, and threads."""

    descriptors: Counter[str]
    threads: int

    @classmethod
    def of(cls, pid: int) -> Footprint:
        kinds: Counter[str] = Counter()
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{name}")
            except FileNotFoundError:
                continue
            kinds["object" if "/objects/" in target else target.partition(":")[0]] += 1
        return cls(kinds, len(os.listdir(f"/proc/{pid}/task")))
