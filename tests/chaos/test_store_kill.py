"""SIGKILL while chunks land, are given up and are checked: what the index says is there, is."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from axonfs.store import Store
from tests.support.profile import SEED, report, scaled
from tests.support.stores import BOOT, CHUNK, held, read, sample

REPOSITORY = Path(__file__).parents[2]
ROUNDS = scaled(12, 60)
CHUNKS = 150

# Four threads land; a fifth takes chunks away again. It says how often it was told that a chunk
# landed, since what `land` has returned for must be there after the kill.
VICTIM = f"""
import os, random, sys, threading
from pathlib import Path
from axonfs.store import Store
from tests.support.stores import BOOT, sample

what, spare = sample({CHUNKS} << 16, seed=1), sample(20 << 16, seed=2)
store = Store.open(Path(sys.argv[1]), boot_id=BOOT)
kept, lost = store.object(what.entry), store.object(spare.entry)
kept.hold(); lost.hold()
chance = random.Random(int(sys.argv[2]))
turns = [chance.sample(range({CHUNKS}), {CHUNKS}) for _ in range(4)]

def land(order):
    for chunk in order:
        kept.land(chunk, what.chunk(chunk))
        os.write(1, bytes([chunk]))

def lose():
    while True:
        for chunk in range(20):
            lost.land(chunk, spare.chunk(chunk))
        lost.punch(0, 10)
        lost.discard()
        store.sync()

for order in turns:
    threading.Thread(target=land, args=(order,)).start()
threading.Thread(target=lose).start()
"""


def kill_while_landing(directory: Path, seed: int) -> set[int]:
    """Returns the chunks that had landed for certain."""
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(directory), str(seed)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    assert victim.stdout is not None
    landed = bytearray()
    wanted = random.Random(seed).randint(1, CHUNKS)
    while len(landed) < wanted:
        said = victim.stdout.read(wanted - len(landed))
        assert said, "the victim died by itself"
        landed += said
    os.kill(victim.pid, signal.SIGKILL)
    landed += victim.stdout.read()
    victim.stdout.close()
    assert victim.wait() == -signal.SIGKILL
    return set(landed)


def test_every_committed_chunk_has_its_bytes(tmp_path: Path) -> None:
    what, spare = sample(CHUNKS * CHUNK, seed=1), sample(20 * CHUNK, seed=2)
    for seed in range(SEED, SEED + ROUNDS):
        landed = kill_while_landing(tmp_path, seed)
        store = Store.open(tmp_path, boot_id=BOOT)
        with held(store, what.entry) as stored, held(store, spare.entry) as other:
            present = {chunk for chunk in range(CHUNKS) if stored.present(chunk, chunk + 1)}
            assert landed <= present, "a chunk that landed would be fetched twice"
            assert all(read(stored, what, chunk) for chunk in present)
            assert all(
                read(other, spare, chunk) for chunk in range(20) if other.present(chunk, chunk + 1)
            )
            assert store.usage() == stored.present_bytes + other.present_bytes
            assert stored.present_bytes == CHUNK * len(present)
            if seed % 3 == 2:
                stored.discard()
        store.close()
    report("kill_store", rounds=ROUNDS)
