"""A real mount against plain bytes, in any order of reads, pins, evictions, deaths and outages."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from axonfs.call import call
from tests.chaos.workers import next_worker
from tests.mount.conftest import Mount, MountFactory, end, patched
from tests.mount.test_journal import BY_CHANCE
from tests.support import faulty
from tests.support.faulty import Fault
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import on_objects
from tests.support.profile import LONG, report, scaled
from tests.support.registry import published

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.complains, pytest.mark.timeout(1800)]

CHUNK = 64 << 10
SIZES = {"big.bin": 9 * CHUNK + 17, "sub/small.bin": 100, "even.bin": 2 * CHUNK}
SPECS = ("nlp/one@1.0.0", "nlp/two@2.0.0")
FOLDERS = ("nlp/one/1.0.0", "nlp/two/2.0.0")
FILES = [f"{folder}/{name}" for folder in FOLDERS for name in SIZES]
DEADLINE = 1
DOCUMENTED = {errno.EIO, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT}
ORIGINS: dict[str, Fault | None] = {
    "up": None,
    "down": faulty.reset_before,
    "silent": faulty.status(503),
    # Nothing vouches for lists of names: one that lies there has other models.
    "lying": on_objects(faulty.flip),
}
MAPPING = """
import hashlib, mmap, sys
with open(sys.argv[1], "rb") as file:
    mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
print(hashlib.sha256(mapping).hexdigest())
"""

WHICH = st.integers(0, len(FILES) - 1)
MODEL = st.integers(0, len(SPECS) - 1)


class MountMachine(RuleBasedStateMachine):
    """`local` are the files of which every byte must be in the cache."""

    number = 0
    reads = 0
    deaths = 0

    def __init__(
        self, start: MountFactory, origin: FaultyOrigin, plain: Path, shortening: dict[str, str]
    ) -> None:
        super().__init__()
        MountMachine.number += 1
        self.shortening = shortening
        self.plain = [(plain / file).read_bytes() for file in FILES]
        self.start = start
        self.origin = origin
        self.origin.always(None)
        self.healthy = True
        self.mount = self.mounted()
        self.local: set[int] = set()
        self.opened: dict[int, int] = {}
        self.deaths_in_a_row = 0

    def mounted(self, cache: Path | None = None) -> Mount:
        config = self.origin.directory.parent / "config.yaml"
        config.write_text(f"deadline: {DEADLINE}\n")
        cache = cache or self.origin.directory.parent / f"cache{MountMachine.number}"
        env = {"AXONFS_CONFIG": str(config), **self.shortening}
        mount = self.start(self.origin.url, cache=cache, env=env)
        os.listdir(mount.path)  # from here on the list of names is known in any weather
        return mount

    def teardown(self) -> None:
        for descriptor in self.opened.values():
            os.close(descriptor)
        self.mount.stop()
        log = self.mount.log.read_text()
        assert "Traceback" not in log
        assert "a bug" not in log
        assert "cannot restore" not in log
        assert "is open and not in the cache's index" not in log

    def path(self, which: int) -> Path:
        return self.mount.path / FILES[which]

    def ask(self, **request: Any) -> dict[str, Any]:
        """The last event of a request."""
        *_, last = call(self.mount.cache, request)
        nothing = "nothing of it is local" in last.get("message", "")
        assert last["event"] == "result" or nothing or not self.healthy, last
        return last

    def attempt(self, which: int, offset: int, size: int, descriptor: int) -> None:
        """A read, which may fail only for want of the origin."""
        MountMachine.reads += 1
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            found = os.pread(descriptor, size, offset)
        except OSError as exc:
            self.excused(exc)
            assert which not in self.local
            return
        want = self.plain[which][offset : offset + size]
        assert found == want[: len(found)]
        if len(found) < len(want):  # what comes before an error is given
            assert found
            assert not self.healthy
            assert which not in self.local
        elif offset == 0 and len(want) == len(self.plain[which]):
            self.local.add(which)

    def excused(self, error: OSError) -> None:
        """An errno that is documented, and for which there is a reason."""
        assert error.errno in DOCUMENTED
        assert not self.healthy

    @rule(which=WHICH, offset=st.integers(0, 9 * CHUNK), size=st.integers(1, 3 * CHUNK))
    def read(self, which: int, offset: int, size: int) -> None:
        self.read_at(which, offset, size)

    @rule(which=WHICH)
    def read_all(self, which: int) -> None:
        self.read_at(which, 0, len(self.plain[which]) + 1)

    def read_at(self, which: int, offset: int, size: int) -> None:
        try:
            descriptor = os.open(self.path(which), os.O_RDONLY)
        except OSError as exc:  # its manifest was never had, or was dropped
            self.excused(exc)
            return
        try:
            self.attempt(which, offset, size, descriptor)
        finally:
            os.close(descriptor)

    @rule(which=WHICH)
    def open(self, which: int) -> None:
        if which in self.opened:
            os.close(self.opened.pop(which))
        elif self.healthy:
            self.opened[which] = os.open(self.path(which), os.O_RDONLY)

    @precondition(lambda self: self.opened)
    @rule(choice=st.data(), offset=st.integers(0, 9 * CHUNK), size=st.integers(1, 9 * CHUNK))
    def read_opened(self, choice: st.DataObject, offset: int, size: int) -> None:
        which = choice.draw(st.sampled_from(sorted(self.opened)))
        self.attempt(which, offset, size, self.opened[which])

    @rule(which=WHICH)
    def map(self, which: int) -> None:
        """In a child, which an error ends with SIGBUS."""
        MountMachine.reads += 1
        command = [sys.executable, "-I", "-S", "-c", MAPPING, str(self.path(which))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            assert not self.healthy
            assert which not in self.local
            assert done.returncode in (1, -signal.SIGBUS), done.stderr
            return
        assert done.stdout.strip() == hashlib.sha256(self.plain[which]).hexdigest()
        self.local.add(which)

    @rule()
    def look(self) -> None:
        """Names and sizes are right, and told in any weather once they are known."""
        for which in sorted(self.local):
            assert self.path(which).stat().st_size == len(self.plain[which])
        if self.healthy:
            assert set(os.listdir(self.mount.path / "nlp")) == {"one", "two"}

    @rule(model=MODEL)
    def pin(self, model: int) -> None:
        if self.ask(op="pin", specs=[SPECS[model]])["event"] == "result":
            self.local |= self.of(model)

    @rule(model=MODEL, drop=st.booleans())
    def unpin(self, model: int, drop: bool) -> None:
        self.ask(op="unpin", specs=[SPECS[model]], drop=drop)
        if drop:
            self.local -= self.of(model)

    @rule(everything=st.booleans())
    def clean(self, everything: bool) -> None:
        self.ask(op="cache_clean", all=everything)
        self.local.clear()

    @rule()
    def verify(self) -> None:
        assert self.ask(op="verify", specs=[])["bad"] == []

    @precondition(lambda self: self.deaths_in_a_row < 2)
    @rule()
    def kill(self) -> None:
        end(next_worker(self.mount, 0))  # looks nothing up, which might hide what was lost
        self.deaths_in_a_row += 1
        MountMachine.deaths += 1

    @rule()
    def restart(self) -> None:
        worker = self.mount.worker()
        self.mount.process.send_signal(signal.SIGHUP)
        while self.mount.worker() == worker:
            pass  # the old worker may answer until it ends
        self.deaths_in_a_row = 0
        MountMachine.deaths += 1

    @precondition(lambda self: not self.opened)
    @rule()
    def remount(self) -> None:
        self.mount.stop()
        self.mount = self.mounted(self.mount.cache)
        self.deaths_in_a_row = 0

    @rule(weather=st.sampled_from(list(ORIGINS)))
    def change(self, weather: str) -> None:
        self.origin.always(ORIGINS[weather])
        self.healthy = weather == "up"

    def of(self, model: int) -> set[int]:
        return {which for which, file in enumerate(FILES) if file.startswith(FOLDERS[model])}


def test_any_order_of_things(tmp_path: Path, start_mount: MountFactory) -> None:
    for spec, seed in zip(SPECS, (1, 2), strict=True):
        registry = published(tmp_path, SIZES, spec=spec, seed=seed, chunk_size=CHUNK)
    limits = settings(
        max_examples=scaled(3, 25),
        stateful_step_count=scaled(15, 40),
        deadline=None,
        derandomize=not LONG,
        # Each step takes its time: to find the shortest history would take all of it.
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    with FaultyOrigin(registry) as origin:
        plain, shortening = tmp_path / "models", patched(tmp_path, BY_CHANCE)

        class Machine(MountMachine):
            def __init__(self) -> None:
                super().__init__(start_mount, origin, plain, shortening)

        run_state_machine_as_test(Machine, settings=limits)
    counts = {"reads": MountMachine.reads, "deaths": MountMachine.deaths}
    report("machine", examples=limits.max_examples, **counts)
