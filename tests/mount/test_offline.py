"""What is pinned needs no network: mounts without one, and with one that does not answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.conftest import FILES, MountFactory, run_axonfs, source_bytes
from tests.support.registry import RegistryServer

pytestmark = pytest.mark.mount
SPEC = "nlp/tiny@1.0.0"
# Longer than any reader below may take: it would, if the mount waited for an answer.
PATIENCE = "3600"
LIMIT = 30

# A child process, so that a name that does not answer ends in a timeout here.
LOOK = """
import errno, os, sys
try:
    path = sys.argv[1]
    print(len(open(path, "rb").read()) if os.path.isfile(path) else os.stat(path).st_size)
except OSError as exc:
    print(errno.errorcode[exc.errno])
"""


@pytest.fixture
def pinned(registry_dir: Path, tmp_path: Path) -> str:
    """A cache with one version pinned and another seen; the URL of the registry, which is gone."""
    with RegistryServer(registry_dir) as server:
        options = ("--cache", tmp_path / "cache", "--registry", server.url)
        run_axonfs("pin", SPEC, *options)
        run_axonfs("info", "nlp/tiny@1.1.0", *options)
        return server.url


def look(path: Path) -> str:
    """How many bytes are read from a file, or the name of the errno."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(path)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    return done.stdout.strip()


def assert_pinned_works(mount: Path, tmp_path: Path) -> None:
    assert sorted(os.listdir(mount / "nlp/tiny")) == ["1.0.0", "1.1.0", "latest"]
    version = mount / "nlp/tiny/1.0.0"
    assert sorted(os.listdir(version)) == [
        "config.json",
        "manifest.yaml",
        "model.safetensors",
        "sub",
        "vocab.txt",
    ]
    for name, size in FILES.items():
        assert (version / name).stat().st_size == size
        assert (version / name).read_bytes() == source_bytes(tmp_path, 0, name)
    assert (mount / "nlp/tiny/1.1.0/vocab.txt").stat().st_size == FILES["vocab.txt"]


@pytest.mark.complains
def test_without_interfaces(pinned: str, start_mount: MountFactory, tmp_path: Path) -> None:
    """Pinned versions are listed and read in a network namespace without interfaces, and with
    `--offline` no connection is tried."""
    config = tmp_path / "config.yaml"
    config.write_text(f"deadline: {PATIENCE}\n")
    mount = start_mount(
        pinned,
        options=("--offline",),
        env={"AXONFS_CONFIG": str(config)},
        within=("unshare", "--net"),
    )
    assert_pinned_works(mount.path, tmp_path)
    assert look(mount.path / "nlp/tiny/1.1.0/vocab.txt") == "ENETUNREACH"
    assert look(mount.path / "nlp/tiny/9.9.9") == "ENETUNREACH"
    assert look(mount.path / "never/seen/1.0.0") == "ENETUNREACH"
    checked = run_axonfs("pin", "--check", "--cache", mount.cache)
    assert checked.stdout.startswith(f"{SPEC} is complete")
    assert packets(mount.worker()) == {"ActiveOpens": 0, "OutDatagrams": 0, "OutRequests": 0}


def packets(pid: int) -> dict[str, int]:
    """What was sent or tried in the namespace of a process: TCP connections, datagrams, packets."""
    counts: dict[str, int] = {}
    lines = Path(f"/proc/{pid}/net/snmp").read_text().splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        counts |= {
            name: int(value)
            for name, value in zip(names.split()[1:], values.split()[1:], strict=True)
            if name in ("ActiveOpens", "OutDatagrams", "OutRequests") and int(value) >= 0
        }
    return counts


@pytest.mark.complains
def test_registry_down_from_the_start(
    pinned: str, start_mount: MountFactory, tmp_path: Path
) -> None:
    """While the registry is down pinned and cached files are listed and read, and a new name gives
    an errno within the deadline."""
    config = tmp_path / "config.yaml"
    config.write_text("deadline: 2\nretries: 0\n")
    mount = start_mount(pinned, env={"AXONFS_CONFIG": str(config)})
    assert_pinned_works(mount.path, tmp_path)
    assert look(mount.path / "nlp/tiny/1.1.0/vocab.txt") in ("EIO", "ETIMEDOUT")
    assert look(mount.path / "nlp/tiny/9.9.9") in ("EIO", "ETIMEDOUT")
    assert look(mount.path / "never/seen/1.0.0") in ("EIO", "ETIMEDOUT")
    status = json.loads(run_axonfs("status", "--json", "--cache", mount.cache).stdout)
    assert status["registries"][0]["error"]
    new = run_axonfs("pin", "nlp/tiny@2.0.0", "--cache", mount.cache, check=False)
    assert new.returncode == 1
    assert pinned in new.stderr
