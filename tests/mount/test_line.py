"""What a mount takes of its line: no more than it may, and no long wait for one bad connection."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from axonfs.fetch.bandwidth import UNUSED_SECONDS
from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.mount.conftest import CHUNK, MODEL, MountFactory, run_axonfs
from tests.support.registry import RegistryServer, make_model
from tests.support.relay import Relay

pytestmark = pytest.mark.mount
TRICKLE = 20 << 10  # bytes per second
LARGE = 96 * CHUNK


def test_bandwidth(registry: RegistryServer, start_mount: MountFactory) -> None:
    """With `--bandwidth` a mount receives at most that many bytes per second, what a reader waits
    for first."""
    rate = 5 * CHUNK
    mount = start_mount(registry.url, options=("--bandwidth", str(rate), "--prefetch", "off"))
    began = time.monotonic()
    data = (mount.path / MODEL).read_bytes()
    took = time.monotonic() - began
    # What was not used before, and a share of each stream, came on top.
    assert len(data) <= rate * (took + UNUSED_SECONDS) + 8 * rate // 20
    assert mount.status()["fetch"]["bandwidth"] == rate


def test_one_slow_connection(tmp_path: Path, start_mount: MountFactory) -> None:
    """If one of several connections to a source becomes slow, its reader gets the rest over another
    one, and hardly a byte comes twice."""
    source = make_model(tmp_path / "large", {"weights.bin": LARGE}, seed=7)
    publish(source, parse_spec("nlp/large@1.0.0"), tmp_path / "shelf", chunk_size=CHUNK)
    bad: list[int] = []

    def rate(number: int, carried: int) -> float | None:
        if not bad and carried > 20 * CHUNK:  # within its second answer
            bad.append(number)
        return TRICKLE if number in bad else None

    with RegistryServer(tmp_path / "shelf") as server, Relay(server.url, rate) as relay:
        mount = start_mount(relay.url, options=("--prefetch", "off"))
        began, digest = time.monotonic(), hashlib.sha256()
        with (mount.path / "nlp/large/1.0.0/weights.bin").open("rb", buffering=0) as file:
            while piece := file.read(CHUNK):
                digest.update(piece)
        assert time.monotonic() - began < CHUNK / TRICKLE  # a chunk takes so long, a job 16 times
        whole = (source / "weights.bin").read_bytes()
        assert digest.digest() == hashlib.sha256(whole).digest()
        assert bad
        hedged = mount.status()["fetch"]["hedged"]
        shown = run_axonfs("status", "--cache", mount.cache).stdout
        # Seldom the connection becomes slow when its range is done: then none is for a rest.
        assert (f"({hedged} for the rest of slow ones)" in shown) == (hedged > 0)
        assert relay.carried < LARGE * 1.08
