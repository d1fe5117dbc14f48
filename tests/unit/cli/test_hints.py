"""Commands in hints can be copied into a shell, whatever is in the names of files."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from axonfs.cli import default_mount, doctor_checks, unmounting
from axonfs.client.health import Health
from axonfs.client.other_users import check_ours, unanswered
from axonfs.connection.mountinfo import Mount
from axonfs.errors import AccessDeniedError

PLACE = Path("/mnt/my models; touch $HOME/x 'y'")
MOUNT = Mount(PLACE, 1, os.geteuid())


def hints(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hints of several commands about a mount at PLACE."""
    monkeypatch.setattr(default_mount, "mounts", lambda: [MOUNT])
    found = [default_mount.where_mounted().removeprefix(f"for the mount at {PLACE}: ")]
    for state in ("dead", "wedged"):
        monkeypatch.setattr(doctor_checks, "health", lambda mount, state=state: Health(state))
        found.append(str(doctor_checks.mount_check(MOUNT).hint))
    found.append(str(unmounting._failure(PLACE, "device is busy").hint))
    found.append(str(unanswered(MOUNT, Health("dead")).hint))
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(AccessDeniedError) as refused:
        check_ours(Mount(PLACE, 1, 0), "umount")
    return [*found, str(refused.value.hint).removeprefix("as root: ")]


def test_a_mountpoint_is_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    for hint in hints(monkeypatch):
        assert str(PLACE) in shlex.split(hint), hint
