"""Mounts that a holder of an earlier version made, which noted less about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mount.conftest import MODEL, NAME, MountFactory, patched, run_axonfs, source_bytes
from tests.support.registry import RegistryServer

pytestmark = [pytest.mark.mount, pytest.mark.complains]

# As it was at first: neither place nor cache nor connection, and no settings and counters for the
# next worker.
EARLIER = """
import json, os
from axonfs.daemon.holders import State
from axonfs.daemon.possessions import ADOPT, Possessions
def save(known, descriptor):
    text = json.dumps({"init": known.init, "plain": known.plain}).encode()
    os.pwrite(descriptor, text, 0)
    os.ftruncate(descriptor, len(text))
hand_over = Possessions.hand_over
def hand_over_less(possessions):
    hand_over(possessions)
    later = ("settings", "meters")
    kept = {name: number for name, number in possessions.descriptors.items() if name not in later}
    os.environ[ADOPT] = json.dumps(kept)
    os.environ["PYTHONPATH"] = ""
State.save, Possessions.hand_over = save, hand_over_less
"""


@pytest.mark.parametrize("text", ["{}", "["])
def test_a_mount_of_an_earlier_version_is_restarted(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path, text: str
) -> None:
    """An upgrade in place, also with a config file that has become invalid: readers see a pause."""
    config = tmp_path / "config.yaml"
    env = patched(tmp_path, EARLIER) | {"AXONFS_CONFIG": str(config)}
    mount = start_mount(registry.url, env=env)
    config.write_text(text)
    old = mount.worker()
    with (mount.path / MODEL).open("rb") as file:
        first = file.read(10)
        for _ in range(2):
            done = run_axonfs("restart", mount.path)
            assert ("it uses its previous settings" in done.stderr) == (text == "[")
        assert first + file.read() == source_bytes(tmp_path, 0, NAME)
    found = mount.status()
    assert (found["mountpoint"], found["cache"]) == (str(mount.path), str(mount.cache))
    assert found["worker"]["pid"] != old
    run_axonfs("umount", mount.path)
    assert mount.process.wait(20) == 0
