"""`axonfs export` beside a mount, which fetches and keeps the cache."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.conftest import FILES, NAME, Mount, MountFactory, run_axonfs, source_bytes
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import Gate, on_objects
from tests.support.registry import SPEC

pytestmark = pytest.mark.mount


def test_a_copy_beside_the_mount(mount: Mount, tmp_path: Path) -> None:
    """`axonfs export` copies a version into a plain directory, through the mount if one runs."""
    out, cache = tmp_path / "out", ("--cache", str(mount.cache))
    found = json.loads(run_axonfs("export", SPEC, out, *cache, "--json").stdout)
    assert found["copied"] == found["size"]
    for name in FILES:
        assert (out / name).read_bytes() == source_bytes(tmp_path, 0, name)
    assert mount.fetched() >= sum(FILES.values())
    fetched = mount.fetched()
    again = json.loads(run_axonfs("export", SPEC, out, *cache, "--json").stdout)
    assert (again["kept"], mount.fetched()) == (found["size"], fetched)
    (out / NAME).write_bytes(b"mine")
    assert (mount.path / "nlp/tiny/1.0.0" / NAME).read_bytes() == source_bytes(tmp_path, 0, NAME)
    run_axonfs("pin", SPEC, *cache)
    run_axonfs("export", SPEC, tmp_path / "linked", "--link", *cache)
    linked = tmp_path / "linked" / NAME
    assert linked.stat().st_mode & 0o222 == 0
    place = run_axonfs("path", SPEC, NAME, *cache).stdout.strip()
    assert linked.samefile(place)
    assert run_axonfs("path", "--mounted", SPEC, NAME, *cache).stdout.strip() == str(
        mount.path / "nlp/tiny/1.0.0" / NAME
    )
    for more in ((), ("--mounted",)):
        missing = run_axonfs("path", SPEC, "../x", *more, *cache, check=False)
        assert missing.returncode == 1
        assert "no such file" in missing.stderr
    refused = run_axonfs("export", SPEC, mount.path / "nlp/x", *cache, check=False)
    assert refused.returncode == 2
    assert "Read-only file system" in refused.stderr


def test_ctrl_c_ends_it_and_the_same_command_goes_on(
    start_mount: MountFactory, registry_dir: Path, tmp_path: Path
) -> None:
    gate = Gate()
    with FaultyOrigin(registry_dir) as origin:
        mount = start_mount(origin.url)
        (mount.path / "nlp/tiny/1.0.0/manifest.yaml").read_bytes()
        origin.always(on_objects(gate))
        line = ("export", SPEC, str(tmp_path / "out"), "--cache", str(mount.cache))
        program = subprocess.Popen(
            [sys.executable, "-m", "axonfs", *line], stderr=subprocess.PIPE, text=True
        )
        assert gate.arrived.wait(30)
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=30)
        assert program.returncode == 130
        assert "is there; the same command goes on" in said
        gate.open.set()
        run_axonfs(*line)
    assert (tmp_path / "out" / NAME).read_bytes() == source_bytes(tmp_path, 0, NAME)
