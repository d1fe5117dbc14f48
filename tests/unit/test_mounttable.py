"""Which paths lead into a mount of AxonFS, without a touch of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from axonfs import mounttable
from axonfs.mounttable import entries, leads_into, mountpoints

TABLE = """\
22 1 8:1 / / rw - ext4 /dev/vda rw
31 22 0:40 / /models rw - fuse.axonfs axonfs rw,user_id=0,group_id=0
32 22 0:40 /hf /srv/a\\040copy rw - fuse.axonfs axonfs rw,user_id=0,group_id=0
33 22 0:41 / /top rw - overlay overlay rw,lowerdir=/models/.hub,upperdir=/u,workdir=/w
34 22 0:42 / /other rw - overlay overlay rw,lowerdir=/usr,upperdir=/u,workdir=/w
"""


def test_mountpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounttable, "table", lambda: TABLE)
    assert mountpoints() == {"/models", "/srv/a copy", "/top"}


@pytest.mark.parametrize("sign", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_signs_that_the_kernel_does_not_escape(sign: str) -> None:
    text = TABLE.replace("/models ", f"/mod{sign}els ")
    (found,) = (entry for entry in entries(text) if entry.number == 31)
    assert (str(found.mountpoint), found.filesystem) == (f"/mod{sign}els", "fuse.axonfs")


def test_paths_that_lead_into_a_mount(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    (tmp_path / "link").symlink_to("mount/.hub")
    (tmp_path / "up").symlink_to(tmp_path / "deep/../link/models")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "beside").mkdir()
    places = {str(mount)}
    for path in ("mount", "mount/x", "link", "up/blobs/x", "beside/../mount", "./link/a", "round"):
        assert leads_into(f"{tmp_path}/{path}", places), path
    for path in ("", "beside", "beside/none/x", "mount2"):
        assert not leads_into(f"{tmp_path}/{path}", places), path
    # The way into the mount is not followed further: what is behind it could lead out again.
    assert leads_into(f"{tmp_path}/mount/../beside", places)
