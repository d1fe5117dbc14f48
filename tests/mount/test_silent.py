"""docs/semantics.md on silent sources: what waits for them, and what does not."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.mount.conftest import Mount, MountFactory, settled
from tests.support import faulty
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import on_objects
from tests.support.registry import published
from tests.support.silence import End, Programs, dropped, timed, unanswered

pytestmark = pytest.mark.mount

DEADLINE = 3
MANY = 24
SIZE = 1 << 20
NAMES = [f"part{number}.bin" for number in range(MANY)]
SILENT, GOOD = "nlp/silent/1.0.0", "nlp/good/1.0.0"


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[FaultyOrigin]:
    (tmp_path / "a").mkdir()
    with FaultyOrigin(
        published(tmp_path / "a", dict.fromkeys(NAMES, SIZE), spec="nlp/silent@1.0.0")
    ) as origin:
        yield origin


@pytest.fixture
def good(tmp_path: Path) -> Iterator[FaultyOrigin]:
    (tmp_path / "b").mkdir()
    files = {"cold.bin": 4 * SIZE, "local.bin": SIZE}
    with FaultyOrigin(published(tmp_path / "b", files, spec="nlp/good@1.0.0")) as origin:
        yield origin


@pytest.fixture
def mount(
    tmp_path: Path, start_mount: MountFactory, silent: FaultyOrigin, good: FaultyOrigin
) -> Iterator[Mount]:
    """Both registries and a silent hub; what each registry lists is known."""
    config = tmp_path / "config.yaml"
    config.write_text(f"deadline: {DEADLINE}\nprefetch: off\n")
    with unanswered() as hub:
        env = {"AXONFS_CONFIG": str(config), "HF_ENDPOINT": hub}
        made = start_mount(silent.url, good.url, options=("--no-passthrough",), env=env)
        for version in (SILENT, GOOD):
            for name in os.listdir(made.path / version):
                os.stat(made.path / version / name)
        (made.path / GOOD / "local.bin").read_bytes()
        yield made
        silent.always(None)


@pytest.mark.complains
def test_others_do_not_wait(mount: Mount, silent: FaultyOrigin) -> None:
    """While a source is silent, other sources, known names and local bytes are read as usual."""
    silent.always(on_objects(faulty.stall_before))
    waiting = Programs()
    for name in NAMES:
        waiting.start((mount.path / SILENT / name).read_bytes)
    for number in range(MANY):
        waiting.start(partial(os.stat, mount.path / f"hf/org{number}/model"))
    settled(lambda: mount.status()["fetch"]["in_flight"] > 0)
    assert len((mount.path / GOOD / "cold.bin").read_bytes()) == 4 * SIZE
    assert len(dropped(mount.path / GOOD / "local.bin")) == SIZE
    assert "cold.bin" in os.listdir(mount.path / GOOD)
    assert timed(lambda: os.stat(mount.path / "nlp/unknown/1.0.0")).errno == errno.ENOENT
    assert waiting.ends == []
    waiting.join(4 * DEADLINE)
    assert {end.errno for end in waiting.ends} == {errno.ETIMEDOUT}
    assert max(end.seconds for end in waiting.ends) < 2 * DEADLINE


@pytest.mark.complains
def test_a_stall_is_paid_once(mount: Mount, silent: FaultyOrigin) -> None:
    """After a source was silent for a whole deadline no later reader waits that long again, and the
    first read after it answers again gets the bytes."""
    silent.always(on_objects(faulty.stall_before))
    read = [(mount.path / SILENT / name).read_bytes for name in NAMES[:8]]
    first, *later = [timed(one) for one in read[:6]]
    assert first.seconds >= DEADLINE / 2
    assert max(end.seconds for end in later) < DEADLINE / 2
    assert {first.errno, *(end.errno for end in later)} == {errno.ETIMEDOUT}
    assert "no bytes of files came for the deadline: received nothing" in stalls(mount)[silent.url]
    silent.always(None)
    assert [len(one()) for one in reversed(read)] == 8 * [SIZE]
    assert stalls(mount) == {}


def stalls(mount: Mount) -> dict[str, str]:
    """The errors of registries that fail, by URL."""
    rows = mount.status()["registries"]
    return {row["url"]: row["error"] for row in rows if row["state"] == "failing"}


def direct(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        os.preadv(descriptor, [mmap.mmap(-1, SIZE)], 0)
    finally:
        os.close(descriptor)


def mapped(path: Path) -> None:
    """A page fault, in a program that dies of it."""
    code = "import mmap, sys; f = open(sys.argv[1]); mmap.mmap(f.fileno(), 0, prot=1)[0]"
    died = subprocess.run([sys.executable, "-c", code, path], check=False).returncode
    if died:
        raise OSError(-died, "died")


def together(path: Path) -> None:
    """Readers of one page."""
    programs = Programs()
    for _ in range(8):
        programs.start(path.read_bytes)
    programs.join(4 * DEADLINE)
    (code,) = {end.errno for end in programs.ends}
    if code:
        raise OSError(code, "all of them")


WAYS: list[tuple[Callable[[Path], object], int]] = [
    (Path.read_bytes, errno.ETIMEDOUT),
    (direct, errno.ETIMEDOUT),
    (mapped, 7),  # SIGBUS
    (together, errno.ETIMEDOUT),
]


@pytest.mark.complains
@pytest.mark.parametrize("fault", [faulty.stall_before, faulty.drip(0.02)])
def test_a_failed_read_takes_one_deadline(
    mount: Mount, silent: FaultyOrigin, fault: faulty.Fault
) -> None:
    """A read that fails takes one deadline, however it is read and by however many readers at
    once."""
    silent.always(on_objects(fault))
    ends: dict[str, End] = {}

    def note(name: str, act: Callable[[], object]) -> None:
        ends[name] = timed(act)

    ways = {
        name: (partial(act, mount.path / SILENT / name), code)
        for name, (act, code) in zip(NAMES, WAYS, strict=False)
    }
    programs = Programs()
    for name, (act, _) in ways.items():
        programs.start(partial(note, name, act))
    programs.join(4 * DEADLINE)
    assert {name: end.errno for name, end in ends.items()} == {
        name: code for name, (_, code) in ways.items()
    }
    assert all(0.9 * DEADLINE <= end.seconds < 1.9 * DEADLINE for end in ends.values()), ends
    silent.always(None)
    assert {timed(act).errno for act, _ in ways.values()} == {0}


@pytest.mark.complains
def test_lookups_beside_each_other(mount: Mount) -> None:
    """A lookup that waits for a source does not delay other lookups in its directory."""
    waiting, began = Programs(), time.monotonic()
    for number in range(MANY):
        waiting.start(partial(os.stat, mount.path / f"hf/org/model{number}"))
    waiting.join(4 * DEADLINE)
    assert {end.errno for end in waiting.ends} == {errno.ETIMEDOUT}
    assert time.monotonic() - began < 2 * DEADLINE
