"""The state of another user's mount, which may say anything."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from axonfs.cli import default_mount, mount_state
from axonfs.cli.main import main
from axonfs.client import health, other_users
from axonfs.client.health import Health
from axonfs.connection.mountinfo import Mount

THEIRS = Mount(Path("/mnt/theirs"), 1, os.geteuid() + 4321)


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXONFS_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("AXONFS_CACHE_DIR", str(tmp_path / "cache"))


def says(monkeypatch: pytest.MonkeyPatch, state: dict[str, Any], *, root: bool = False) -> None:
    """Have another user's mount say this of itself; `root` looks at it as root does."""
    for module in (mount_state, health):
        monkeypatch.setattr(module, "mount_at", lambda place: THEIRS, raising=False)
        monkeypatch.setattr(module, "health", lambda mount: Health("alive", state))
    for module in (mount_state, default_mount, other_users):
        monkeypatch.setattr(module, "is_ours", lambda mount: root)


def test_root_makes_nothing_where_a_mount_says_that_its_cache_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "etc/cache"
    says(monkeypatch, {"mountpoint": "/mnt/theirs", "cache": str(place)}, root=True)
    assert main(["status", "--json", str(THEIRS.mountpoint)]) == 0
    assert json.loads(capsys.readouterr().out)["cache"] == str(place)
    assert not place.parent.exists()


@pytest.mark.parametrize("command", [["status"], ["status", "--check"], ["explain"]])
@pytest.mark.parametrize("value", [1, [1], [{}], "x", {"a": None}, [{"url": []}]])
@pytest.mark.parametrize("root", [False, True])
def test_a_state_that_is_malformed_is_no_bug(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    value: Any,
    root: bool,
) -> None:
    names = ["waits", "waited", "waits_over", "since", "open", "fetch", "registries", "hubs"]
    names += ["disk", "failures", "quarantined", "cache", "prefetch", "pins", "worker", "trace"]
    for name in names:
        says(monkeypatch, {"mountpoint": "/mnt/theirs", name: value}, root=root)
        code = main([*command, str(THEIRS.mountpoint)])
        said = capsys.readouterr()
        assert "bug" not in said.err
        assert code in (0, 5, 6) or "mount says of its state is malformed" in said.err + said.out
