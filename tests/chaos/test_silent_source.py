"""A mount of a source that falls silent again and again, beside one that is well.

In each round more readers wait for the silent one than it has streams, and than the kernel has by
default in the background. What the other source has and what is local is read meanwhile, again and
again; then the source answers again, and the first who reads gets the bytes.
"""

from __future__ import annotations

import errno
import os
import random
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.mount.conftest import Mount, MountFactory
from tests.support import faulty
from tests.support.faulty import Fault
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import on_objects
from tests.support.profile import SEED, report, scaled
from tests.support.registry import published
from tests.support.silence import Programs, dropped, timed, unanswered

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.complains]

CHUNK = 64 << 10
DEADLINE = 4
ROUNDS = scaled(1, 10)
READERS, LOOKUPS = scaled(160, 300), scaled(40, 100)
FAULTS: list[Fault] = [
    faulty.stall_before,
    faulty.stall_within,
    faulty.drip_headers(0.2),
    faulty.reset_before,
]
SILENT, GOOD = "nlp/silent", "nlp/good"
FEW = [f"part{number}.bin" for number in range(50)]


@pytest.fixture
def origins(tmp_path: Path) -> Iterator[tuple[FaultyOrigin, FaultyOrigin]]:
    """One that will be silent, with a version for each round, and one that is well."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    for number in range(ROUNDS):
        names = [f"part{at}.bin" for at in range(READERS + 1)]
        spec, sizes = f"nlp/silent@1.0.{number}", dict.fromkeys(names, CHUNK)
        silent = published(tmp_path / "a", sizes, spec=spec, seed=number, chunk_size=CHUNK)
        spec, sizes = f"nlp/good@1.0.{number}", dict.fromkeys(FEW, CHUNK)
        good = published(tmp_path / "b", sizes, spec=spec, seed=-number - 1, chunk_size=CHUNK)
    with FaultyOrigin(silent) as one, FaultyOrigin(good) as other:
        yield one, other
        one.always(None)


def compare(path: Path, plain: Path) -> None:
    assert path.read_bytes() == plain.read_bytes()


class Round:
    """One silence: who waits, and what was read beside them."""

    def __init__(self, mount: Mount, number: int) -> None:
        self.waiting = Programs()
        self.times: list[float] = []
        self.healthy = self.local = 0
        self._mount = mount
        self._version = f"1.0.{number}"

    def begin(self) -> None:
        folder = self._mount.path / SILENT / self._version
        for number in range(READERS):
            self.waiting.start((folder / f"part{number}.bin").read_bytes)
        for number in range(LOOKUPS):
            place = f"hf/org{self._version}/model{number}"
            self.waiting.start(partial(os.stat, self._mount.path / place))

    def read_beside(self, plain: Path) -> None:
        """Read what is not to wait, as long as those wait."""
        folder = self._mount.path / GOOD / self._version
        for name in FEW:
            if self.waiting.ends:
                break
            ends = [
                timed(partial(compare, folder / name, plain / name)),
                timed(partial(dropped, folder / name)),
            ]
            assert [end.errno for end in ends] == [0, 0]
            self.times += [end.seconds for end in ends]
            self.healthy += 1
            self.local += 1


def test_silence(
    tmp_path: Path, start_mount: MountFactory, origins: tuple[FaultyOrigin, FaultyOrigin]
) -> None:
    """Only readers of the silent source wait, each for one deadline."""
    silent, good = origins
    chance = random.Random(SEED)
    config = tmp_path / "config.yaml"
    config.write_text(f"deadline: {DEADLINE}\nprefetch: off\n")
    healthy = local = 0
    times: list[float] = []
    with unanswered() as hub:
        env = {"AXONFS_CONFIG": str(config), "HF_ENDPOINT": hub}
        mount = start_mount(silent.url, good.url, options=("--no-passthrough",), env=env)
        for number in range(ROUNDS):
            for model in (SILENT, GOOD):
                folder = mount.path / model / f"1.0.{number}"
                assert all(entry.stat().st_size for entry in os.scandir(folder))
            silent.always(on_objects(FAULTS[0] if number == 0 else chance.choice(FAULTS)))
            one = Round(mount, number)
            one.begin()
            one.read_beside(tmp_path / f"b/models/nlp/good/1.0.{number}")
            one.waiting.join(4 * DEADLINE + 10)
            codes = {end.errno for end in one.waiting.ends}
            assert codes <= {errno.ETIMEDOUT, errno.EIO}
            silent.always(None)
            first = f"silent/1.0.{number}/part{READERS}.bin"
            compare(mount.path / "nlp" / first, tmp_path / "a/models/nlp" / first)
            healthy, local = healthy + one.healthy, local + one.local
            times += one.times
    # However busy the machine is, these programs run one after the other.
    assert healthy >= ROUNDS * 5
    assert statistics.median(times) < DEADLINE / 8
    report(
        "silent_source",
        rounds=ROUNDS,
        readers=READERS,
        lookups=LOOKUPS,
        healthy=healthy,
        local=local,
        median=statistics.median(times),
        slowest=max(times),
        deadline=DEADLINE,
    )
