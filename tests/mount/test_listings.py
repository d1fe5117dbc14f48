"""Listings on a real mount: what changes while it is read, and what the kernel keeps."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from axonfs.formats.listing import Listing, render_index
from axonfs.names import Spec
from tests.mount.conftest import Mount, MountFactory, patched, settled
from tests.mount.test_stale import stop
from tests.support.registry import RegistryServer

pytestmark = pytest.mark.mount

# An index counts as current for a moment, so that a test sees it change.
SHORT_TTL = "from axonfs.catalog import memo\nmemo.TTL = 0.1\n"


def list_versions(registry_dir: Path, versions: range) -> set[str]:
    """Have the index name those versions of one model, more than one request lists."""
    names = [f"1.{number}.0" for number in versions]
    listings = [Listing(Spec("nlp", "many", name), published=1e9) for name in names]
    (registry_dir / "api/v1/index.json").write_bytes(render_index(listings))
    return {*names, "latest"}


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.complains)])
def test_names_come_and_go_while_they_are_listed(
    start_mount: MountFactory, registry_dir: Path, tmp_path: Path, killed: bool
) -> None:
    """Above the versions a listing neither misses nor repeats a name while other names come and
    go."""
    before = list_versions(registry_dir, range(9000))
    with RegistryServer(registry_dir) as registry:
        mount = start_mount(registry.url, env=patched(tmp_path, SHORT_TTL))
        folder = mount.path / "nlp/many"
        settled(lambda: set(os.listdir(folder)) == before)
        with os.scandir(folder) as listing:
            seen = [next(listing).name]
            after = list_versions(registry_dir, range(4500, 13500))
            settled(lambda: set(os.listdir(folder)) == after)
            if killed:
                mount.kill_worker()
            seen += [entry.name for entry in listing]
    assert len(seen) == len(set(seen))
    assert before & after <= set(seen) <= before | after


def test_the_kernel_keeps_listings(mount: Mount) -> None:
    """What was listed once is listed again without the mount's process, as `ls -R` needs it."""
    # By descriptor: on the way along a path the kernel asks for what it was told a second ago.
    version = os.open(mount.path / "nlp/tiny/1.0.0", os.O_RDONLY | os.O_DIRECTORY)
    names, found = os.listdir(version), list[list[str]]()
    again = threading.Thread(target=lambda: found.append(os.listdir(version)), daemon=True)
    worker = mount.worker()
    stop(worker)
    try:
        again.start()
        again.join(20)
    finally:
        os.kill(worker, signal.SIGCONT)
        os.close(version)
    assert found == [names]
