"""Which mount a command is about that names none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from axonfs.cli import default_mount, log_reader
from axonfs.cli.options import make_target
from axonfs.connection.mountinfo import Mount
from axonfs.daemon.holders import Running
from axonfs.errors import AxonError, NotFoundError, UsageError

ME, OTHER = os.geteuid(), os.geteuid() + 1
FIRST, SECOND = Mount(Path("/mnt/1"), 1, ME), Mount(Path("/mnt/2"), 2, ME)
THEIRS = Mount(Path("/mnt/3"), 3, OTHER)


@pytest.fixture(autouse=True)
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Mount]:
    """Two mounts of this user and one of another, with the caches 1, 2 and 3; `link` leads to 2."""
    found = [FIRST, SECOND, THEIRS]
    (tmp_path / "link").symlink_to(tmp_path / "2")
    monkeypatch.setenv("AXONFS_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AXONFS_CACHE_DIR", "AXONFS_MOUNTPOINT", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(default_mount, "mounts", lambda: found)
    monkeypatch.setattr(default_mount, "running", list)
    monkeypatch.setattr(default_mount, "holder_of", lambda mount: None)
    caches = {mount: str(tmp_path / str(mount.connection)) for mount in found}
    monkeypatch.setattr(default_mount, "cache_of", caches.__getitem__)
    return found


@pytest.mark.parametrize("cache", ["2", "link"])
def test_the_one_with_the_cache_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    assert default_mount.mount_to_look_at(make_target((), str(tmp_path / cache))) == SECOND
    monkeypatch.setenv("AXONFS_CACHE_DIR", str(tmp_path / cache))
    assert default_mount.mount_to_look_at(make_target()) == SECOND
    assert default_mount.place_to_change(None) == SECOND.mountpoint


def test_a_cache_that_no_mount_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXONFS_CACHE_DIR", str(tmp_path / "4"))
    with pytest.raises(NotFoundError, match="nothing is mounted with the cache"):
        default_mount.mount_to_look_at(make_target())
    with pytest.raises(UsageError, match="there are 2 mounts: /mnt/1, /mnt/2; name one"):
        default_mount.place_to_change(None)


def test_the_only_one(mounted: list[Mount]) -> None:
    with pytest.raises(UsageError, match="there are 2 mounts: /mnt/1, /mnt/2; name one"):
        default_mount.mount_to_look_at(make_target())
    mounted.remove(FIRST)
    assert default_mount.mount_to_look_at(make_target()) == SECOND
    assert default_mount.place_to_change(None) == SECOND.mountpoint
    mounted.remove(SECOND)
    assert default_mount.mount_to_look_at(make_target()) == THEIRS
    with pytest.raises(AxonError, match="you have no mount; only its owner or root"):
        default_mount.place_to_change(None)


def test_a_mountpoint_that_is_configured_is_the_only_one_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AXONFS_CACHE_DIR", str(tmp_path / "2"))
    monkeypatch.setenv("AXONFS_MOUNTPOINT", "/mnt/1")
    assert default_mount.place_to_change(None) == FIRST.mountpoint
    monkeypatch.setenv("AXONFS_MOUNTPOINT", "/mnt/4")
    with pytest.raises(AxonError, match="no AxonFS is mounted there"):
        default_mount.place_to_change(None)


def test_the_log_of_the_mount_with_the_cache_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def holder_of(mount: Mount) -> Running:
        log = tmp_path / f"{mount.connection}.log"
        log.touch()
        return Running(os.getpid(), ME, mount.mountpoint, tmp_path, mount.connection, log)

    monkeypatch.setattr(log_reader, "holder_of", holder_of)
    monkeypatch.setattr(log_reader, "_of_holder", lambda holder, lines, follow: holder.config)
    monkeypatch.setenv("AXONFS_CACHE_DIR", str(tmp_path / "2"))
    assert log_reader._path(None, None, 1, follow=False) == tmp_path / "2.log"
    assert log_reader._path(None, str(tmp_path / "1"), 1, follow=False) == tmp_path / "1.log"
