"""Pins beside a mount."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.mount.conftest import MountFactory, run_axonfs, settled
from tests.support.faulty import Exchange
from tests.support.faulty_origin import FaultyOrigin
from tests.support.registry import make_model

pytestmark = pytest.mark.mount
MIB = 1 << 20
FILES = {f"w{number}.bin": 16 * MIB for number in range(12)}
TOTAL = sum(FILES.values())


class Gate:
    """A fault: the first MiB of an object at once, each further one when `open` lets it."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        exchange.answered = True
        exchange.head()
        for start in range(0, len(exchange.body), MIB):
            if start and not exchange.closing.is_set():
                self.open.wait(20)
            exchange.write(exchange.body[start : start + MIB])


@pytest.fixture
def origin(registry_dir: Path, tmp_path: Path) -> Iterator[FaultyOrigin]:
    publish(
        make_model(tmp_path / "large", FILES),
        parse_spec("nlp/large@1"),
        registry_dir,
        chunk_size=MIB,
    )
    with FaultyOrigin(registry_dir) as server:
        yield server


def test_an_interrupted_pin_stops_in_the_mount(
    start_mount: MountFactory, origin: FaultyOrigin
) -> None:
    """An interrupted `pin` also stops in the mount: chunks that only it needs are no longer
    fetched."""
    gate = Gate()
    mount = start_mount(origin.url, options=("--prefetch", "off"))
    origin.always(gate)
    cache = ("--cache", str(mount.cache))
    command = [sys.executable, "-m", "axonfs", "pin", "nlp/large@1", *cache]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    pin = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    settled(lambda: mount.status()["fetch"]["in_flight"] >= 4)
    pin.send_signal(signal.SIGINT)
    assert "axonfs pin nlp/large@1 resumes it" in pin.communicate(timeout=30)[1]
    assert pin.returncode == 130
    asked = mount.status()["fetch"]
    gate.open.set()
    settled(lambda: mount.status()["fetch"]["in_flight"] == 0)
    after = mount.status()["fetch"]
    assert after["requests"] == asked["requests"]
    assert after["queued"] == 0
    assert after["bytes"] < TOTAL / 2
    (listed,) = json.loads(run_axonfs("list", "--format", "json", *cache).stdout)
    assert listed["Local"] < TOTAL / 2
    origin.always(None)
    done = run_axonfs("pin", "nlp/large@1", *cache)
    assert f"{TOTAL >> 20} MiB" in done.stdout
    assert run_axonfs("pin", "--check", *cache).returncode == 0
