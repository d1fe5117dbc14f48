"""tools/try_install runs what docs/install.md shows: each block marked `sh`, or says why not."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import axonfs
from tools.installing.newer import renumber_wheel
from tools.installing.page import FIRST_MODEL, NOT_RUN, PAGE, WAYS, Way, blocks

BLOCKS = blocks(PAGE.read_text())


def test_each_block_of_the_page_is_run_or_named_with_a_reason() -> None:
    run = {way.section: way.blocks for way in WAYS} | {FIRST_MODEL: 1}
    left_out = {section: len(BLOCKS[section]) for section in NOT_RUN}
    assert {section: len(found) for section, found in BLOCKS.items()} == run | left_out
    assert all(NOT_RUN.values())


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_the_blocks_of_a_way_are_in_the_order_that_is_expected(way: Way) -> None:
    """An installation ends with `axonfs doctor`, and only a removal unmounts."""
    first, *others, last = BLOCKS[way.section]
    assert first[-1].endswith("axonfs doctor")
    assert any("install" in line for line in first)
    assert any(word in line for line in last for word in ("uninstall", "purge", "rm -r"))
    assert not [line for block in (first, *others) for line in block if "umount" in line]
    restarts = [line for block in others for line in block if "restart" in line]
    assert len(restarts) == (0 if way.services else 1)


def test_the_page_names_files_of_this_version() -> None:
    text = PAGE.read_text()
    assert f"axonfs-{axonfs.__version__}.tar.gz" in text
    assert f"axonfs_{axonfs.__version__}_amd64.deb" in text


def test_a_wheel_with_another_version(tmp_path: Path) -> None:
    """Its metadata, its record and the version that it reports agree."""
    old, new = tmp_path / "axonfs-1.0-py3-none-any.whl", tmp_path / "new"
    new.mkdir()
    with zipfile.ZipFile(old, "w") as archive:
        archive.writestr("axonfs/_version.py", '"""Its number."""\n\n__version__ = "1.0"\n')
        archive.writestr("axonfs-1.0.dist-info/METADATA", "Name: axonfs\nVersion: 1.0\n\nText\n")
        archive.writestr("axonfs-1.0.dist-info/RECORD", "")
    renumber_wheel(old, "2.0", new)
    with zipfile.ZipFile(new / "axonfs-2.0-py3-none-any.whl") as archive:
        assert '__version__ = "2.0"' in archive.read("axonfs/_version.py").decode()
        assert "Version: 2.0\n" in archive.read("axonfs-2.0.dist-info/METADATA").decode()
        record = archive.read("axonfs-2.0.dist-info/RECORD").decode()
        names = [line.partition(",")[0] for line in record.splitlines()]
        assert names == archive.namelist()


def test_a_signal_ends_the_machine(tmp_path: Path) -> None:
    """SIGTERM by way of each `finally`; otherwise systemd would go on in its namespaces."""
    script = """
import os, signal, sys
from tools.installing import ways

def write_locally(*_):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    finally:
        print("cleaned up")

ways.make_newer = lambda *_: None
ways.write_locally = write_locally
ways.main()
"""
    names = ("root", "release", "work", "python", "model", "suite", "arch")
    options = [f"--{name}={tmp_path}" for name in names]
    done = subprocess.run(
        [sys.executable, "-c", script, *options], stdout=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (143, "cleaned up\n")
