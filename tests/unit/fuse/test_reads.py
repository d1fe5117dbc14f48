"""Until when the store tells the native threads which chunks go: until none reads any more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from axonfs.fuse import openreply
from axonfs.fuse.reads import NativeReads
from axonfs.ranges import Range
from axonfs.store.watcher import UNWATCHED
from axonfs.vfs.places import File


class Extension:
    """Has the interface of the native core; `ends` says whether its threads end in time."""

    def __init__(self, *, ends: bool = True) -> None:
        self.ends = ends
        self.presence = SimpleNamespace(
            watcher=UNWATCHED, usable=SimpleNamespace(extents=lambda first, stop: [])
        )
        self.told: list[str] = []

    def start(self, device: int, readers: int, answerers: int) -> int:
        return device

    def add(self, fd: int, size: int, chunk: int, in_memory: bool) -> int:
        return 1

    def totals(self, handle: int) -> tuple[int, int]:
        return 0, 0

    def attach(self, handle: int, number: int) -> bool:
        return True

    def detach(self, handle: int) -> bool:
        return False

    def cleared(self, number: int, first: int, stop: int) -> None:
        self.told.append("cleared")

    def drop(self, number: int) -> None:
        self.presence.watcher.cleared(Range(0, 1))
        self.told.append("drop")

    def stop(self) -> bool:
        self.presence.watcher.cleared(Range(0, 1))
        self.told.append("stop")
        return self.ends


def started(extension: Extension, monkeypatch: pytest.MonkeyPatch) -> NativeReads:
    """Native reads with one handle on one object."""
    monkeypatch.setattr(openreply, "extension", lambda: extension)
    monkeypatch.setattr("os.set_blocking", lambda descriptor, blocking: None)
    stored = SimpleNamespace(
        opened=lambda: 0, fd=0, size=10, chunk_size=10, count=1, presence=extension.presence
    )
    facts = {"direct": True, "tabled": True, "compared": True, "restarts": 0}
    feed = SimpleNamespace(object=stored, download=SimpleNamespace(coming=[]), **facts)
    files: Any = SimpleNamespace(native=None, attach_all=lambda: None)
    native = NativeReads(files, SimpleNamespace(), in_memory=False)  # type: ignore[arg-type]
    native.start(0)
    place = File((), None, None)  # type: ignore[arg-type]
    counts = {"reads": 0, "bytes_read": 0}
    handle: Any = SimpleNamespace(number=2, place=place, feed=feed, frozen=False, **counts)
    native.attach(handle)
    return native


def test_when_the_mount_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    extension = Extension()
    started(extension, monkeypatch).stop()
    assert extension.told == ["cleared", "stop"]
    assert extension.presence.watcher is UNWATCHED


def test_a_thread_that_does_not_end_is_told_of_more(monkeypatch: pytest.MonkeyPatch) -> None:
    extension = Extension(ends=False)
    started(extension, monkeypatch).stop()
    extension.presence.watcher.cleared(Range(0, 1))
    assert extension.told == ["cleared", "stop", "cleared"]


def test_when_the_last_handle_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    extension = Extension()
    started(extension, monkeypatch).detach(2)
    assert extension.told == ["cleared", "drop"]
    assert extension.presence.watcher is UNWATCHED
