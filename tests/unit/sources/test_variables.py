"""The variables of the Hub's own client, where they are meant for readers of a mount."""

from __future__ import annotations

from pathlib import Path

import pytest

from axonfs import mounttable
from axonfs.sources.hubcache import HubCache
from axonfs.sources.huggingface import silenced

MOUNT = "31 22 0:40 / {} rw - fuse.axonfs axonfs rw,user_id=0\n"


@pytest.fixture
def view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory `.hub` that is in no mount, and the variables of `axonfs env` for it."""
    path = tmp_path / ".hub"
    monkeypatch.setattr(mounttable, "table", lambda: "")
    monkeypatch.setenv("HF_HUB_CACHE", str(path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return path


def test_variables_of_a_mount(view: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mount is there, or is about to be: they forbid nothing, and the cache is in the home."""
    assert silenced() is None
    assert f"{view.parent}/home/hub" in repr(HubCache.configured())
    view.mkdir()
    monkeypatch.setattr(mounttable, "table", lambda: MOUNT.format(view.parent))
    assert silenced() is None
    assert f"{view.parent}/home/hub" in repr(HubCache.configured())


def test_a_cache_with_such_a_name(view: Path) -> None:
    view.mkdir()
    assert silenced() == "HF_HUB_OFFLINE"
    assert f"{view}>" in repr(HubCache.configured())
