"""Which mounts there are, from mountinfo; and that a hanging one holds up no command."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from axonfs.client.health import STATUS_PATH, Health, _state_of, health, real_path
from axonfs.connection import mountinfo
from axonfs.connection.mountinfo import Mount, parse_mountinfo

INFO = """\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda rw
90 22 0:45 / /models ro,nosuid,nodev,relatime shared:9 - fuse.axonfs axonfs ro,user_id=0
91 22 0:46 / /home/a\\040b/models ro - fuse.axonfs axonfs ro,user_id=1000
92 22 0:47 / /mnt/other rw - fuse.sshfs host: rw
93 22 0:48 / /twice ro - fuse.axonfs axonfs ro
94 93 0:49 / /twice ro - fuse.axonfs axonfs ro
95 22 0:50 / /hidden ro - fuse.axonfs axonfs ro
96 95 0:51 / /hidden rw - tmpfs tmpfs rw
"""


def test_the_mounts_are_found_with_their_connection() -> None:
    assert parse_mountinfo(INFO) == [
        Mount(Path("/models"), 45),
        Mount(Path("/home/a b/models"), 46, 1000),
        Mount(Path("/twice"), 49),
    ]


def test_optional_fields_do_not_shift_the_rest() -> None:
    line = "90 22 0:45 / /m ro shared:9 master:2 propagate_from:2 - fuse.axonfs axonfs ro\n"
    assert parse_mountinfo(line) == [Mount(Path("/m"), 45)]


def test_this_machines_own_mountinfo_parses() -> None:
    assert isinstance(mountinfo.mounts(), list)


def fake_mount(tmp_path: Path, content: str) -> Mount:
    path = tmp_path / STATUS_PATH
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    return Mount(tmp_path, 1)


def test_a_mount_that_answers_is_alive(tmp_path: Path) -> None:
    answer = health(fake_mount(tmp_path, '{"pid": 12, "cache": "/c"}'))
    assert answer == Health("alive", {"pid": 12, "cache": "/c"})
    assert answer.pid == 12


def test_a_pid_that_is_none_is_not_used() -> None:
    assert Health("alive", {"pid": "12; reboot"}).pid is None
    assert Health("alive", {"pid": -1}).pid is None


def test_a_mount_that_does_not_answer_is_wedged_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn, children = os.posix_spawnp, list[int]()

    def spawned(*args: Any, **options: Any) -> int:
        children.append(spawn(*args, **options))
        return children[-1]

    monkeypatch.setattr(os, "posix_spawnp", spawned)
    (tmp_path / ".axonfs").mkdir()
    os.mkfifo(tmp_path / STATUS_PATH)  # a reader of it waits for ever, as on a wedged mount
    before = time.monotonic()
    assert health(Mount(tmp_path, 1), patience=0.3).state == "wedged"
    assert time.monotonic() - before < 2
    (child,) = children
    with pytest.raises(ChildProcessError):
        os.waitpid(child, os.WNOHANG)


def test_a_mount_of_another_user_is_closed(tmp_path: Path) -> None:
    assert _state_of(b"cat: /m/.axonfs/status.json: Permission denied\n") == "closed"
    assert _state_of(b"cat: x: Transport endpoint is not connected\n") == "dead"


def test_a_place_is_settled_through_links_and_dots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real" / "m").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    assert real_path(Path("link/m")) == tmp_path / "real" / "m"
    assert real_path(Path("link/../real/./m/")) == tmp_path / "real" / "m"
    assert real_path(Path("/")) == Path("/")
