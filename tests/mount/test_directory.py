"""A mount of a registry in a directory of this machine, which needs no server."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.mount.conftest import CHUNK, FILES, MODEL, NAME, MountFactory, run_axonfs
from tests.support.registry import make_model

pytestmark = pytest.mark.mount


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Path]:
    """A read-only disk with a registry on it; its name needs quotes in a URL."""
    made, place = tmp_path / "disk", tmp_path / "a stick%20"
    model = make_model(tmp_path / "model", FILES)
    publish(model, parse_spec("nlp/tiny@1.0.0"), made, chunk_size=CHUNK)
    place.mkdir()
    subprocess.run(["mount", "--bind", made, place], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
    yield place
    subprocess.run(["umount", "-q", place], check=False)


def test_a_directory_is_a_registry_also_on_a_read_only_disk(
    stick: Path, tmp_path: Path, start_mount: MountFactory
) -> None:
    mount = start_mount(str(stick))
    for name in FILES:
        found = (mount.path / "nlp/tiny/latest" / name).read_bytes()
        assert found == (tmp_path / "model" / name).read_bytes()
    assert mount.status()["fetch"]["requests"] == 0
    (shown,) = mount.status()["registries"]
    assert shown["url"].endswith("/a%20stick%2520/")


def test_commands_work_with_a_directory(stick: Path, tmp_path: Path) -> None:
    options: list[str | Path] = ["--registry", stick, "--cache", tmp_path / "cache"]
    assert "nlp/tiny@1.0.0" in run_axonfs("search", "tiny", *options).stdout
    assert "nlp/tiny@1.0.0 is pinned: 4 files" in run_axonfs("pin", "nlp/tiny", *options).stdout
    assert f"file://{tmp_path}/a%20stick%2520/" in run_axonfs("info", "nlp/tiny", *options).stdout
    missing = run_axonfs("pin", "nlp/other", *options, check=False)
    assert "nlp/other: " in missing.stderr
    assert missing.returncode == 1


@pytest.mark.complains
def test_a_disk_that_was_removed_is_an_outage_and_no_empty_registry(
    stick: Path, tmp_path: Path, start_mount: MountFactory
) -> None:
    """What was read stays; the rest says what to do, and is there again with the disk."""
    mount = start_mount(str(stick), env={"AXONFS_PREFETCH": "off"})
    with open(mount.path / MODEL, "rb") as file:
        first = file.read(10)
    subprocess.run(["umount", stick], check=True)
    assert (mount.path / MODEL).stat().st_size == FILES[NAME]
    with pytest.raises(OSError) as caught, open(mount.path / "nlp/tiny/1.0.0/vocab.txt", "rb") as f:  # noqa: PT011
        f.read()
    assert caught.value.errno == errno.EIO
    assert "check that its disk is mounted" in mount.log.read_text()
    subprocess.run(["mount", "--bind", tmp_path / "disk", stick], check=True)
    assert (mount.path / MODEL).read_bytes()[:10] == first


@pytest.mark.parametrize("given", ["option", "variable"])
def test_a_relative_path_counts_from_where_the_mount_was_started(
    stick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """Not from the root directory, in which a mount in the background runs."""
    monkeypatch.chdir(tmp_path)
    place, options = tmp_path / "mount", ["--cache", "cache"]
    if given == "option":
        options += ["--registry", f"./{stick.name}"]
    else:
        monkeypatch.setenv("AXONFS_REGISTRY", "./disk")
    run_axonfs("mount", place, *options)
    try:
        assert (place / MODEL).read_bytes() == (tmp_path / "model" / NAME).read_bytes()
    finally:
        run_axonfs("umount", place)
