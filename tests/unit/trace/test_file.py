"""The file of a trace: private, and never in the place of another one."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from axonfs.errors import AxonError
from axonfs.trace.file import TraceFile
from axonfs.trace.records import encoded, header


def test_it_is_private_and_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "load.trace"
    before = os.umask(0)
    try:
        file = TraceFile.open(path)
    finally:
        os.umask(before)
    file.append(encoded([header(5.0)]) + b'["li')
    with pytest.raises(AxonError, match="another mount records into it"):
        TraceFile.open(path)
    file.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = TraceFile.open(path)
    again.append(b"[]\n")
    again.close()
    assert path.read_bytes() == encoded([header(5.0)]) + b'["li\n[]\n'


def test_it_stays_open_while_a_thread_hangs_in_its_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the thread would go on in the file that has its number by then."""
    path, other = tmp_path / "load.trace", tmp_path / "other"
    hangs, goes_on, write = threading.Event(), threading.Event(), os.write

    def half(descriptor: int, data: memoryview) -> int:
        hangs.set()
        assert goes_on.wait(20)
        return write(descriptor, data[:3])

    file = TraceFile.open(path)
    monkeypatch.setattr(os, "write", half)
    writing = threading.Thread(target=file.append, args=(b"[1,2,3]\n",))
    writing.start()
    assert hangs.wait(20)
    closing = threading.Thread(target=file.close)
    closing.start()
    closing.join(0.1)
    with other.open("wb"):  # which gets the lowest number that is free
        goes_on.set()
        writing.join(20)
        closing.join(20)
    assert (path.read_bytes(), other.read_bytes()) == (b"[1,2,3]\n", b"")
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.append(b"[]\n")


def test_one_that_nobody_waits_for_any_more_is_closed(tmp_path: Path) -> None:
    """As when its disk took too long to open it."""
    TraceFile.open(tmp_path / "load.trace")
    TraceFile.open(tmp_path / "load.trace").close()


def _text(path: Path) -> None:
    path.write_text("a letter")


def _link(path: Path) -> None:
    TraceFile.open(path.with_suffix(".other")).close()
    path.symlink_to(path.with_suffix(".other"))


def _hard_link(path: Path) -> None:
    file = TraceFile.open(path)
    file.append(encoded([header(5.0)]))
    file.close()
    path.with_suffix(".other").hardlink_to(path)


def _open_to_all(path: Path) -> None:
    path.write_bytes(encoded([header(5.0)]))
    path.chmod(0o666)


@pytest.mark.parametrize("make", [_text, _link, _hard_link, _open_to_all, os.mkfifo, Path.mkdir])
def test_anything_else_is_left_as_it_is(make: object, tmp_path: Path) -> None:
    path = tmp_path / "load.trace"
    assert callable(make)
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(AxonError, match=r"load\.trace: .*name another file"):
        TraceFile.open(path)
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_full_disk_is_an_error_for_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full leaves a torn line, which the next worker would have to end."""

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "load.trace"
    path.write_bytes(encoded([header(5.0)]) + b'["li')
    path.chmod(0o600)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(AxonError, match="the disk of the trace is full"):
        TraceFile.open(path)
