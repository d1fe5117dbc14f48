"""How many traces a cache keeps of those that were started without a name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from axonfs.trace.file import TraceFile
from axonfs.trace.recorder import KEPT, _remove_oldest
from axonfs.trace.records import encoded, header


@pytest.fixture
def traces(tmp_path: Path) -> list[Path]:
    """More than are kept, oldest first."""
    paths = [tmp_path / f"2026-11-{day:02}T00-00-00.trace" for day in range(1, KEPT + 4)]
    for second, path in enumerate(paths):
        written(path, second)
    return paths


def written(path: Path, second: int) -> None:
    file = TraceFile.open(path)
    file.append(encoded([header(5.0)]))
    file.close()
    os.utime(path, (second, second))


def test_the_oldest_go(traces: list[Path], tmp_path: Path) -> None:
    """By when they were last written: a clock may have been wrong when one began."""
    newest = tmp_path / "2001-01-01T00-00-00.trace"
    written(newest, 1)
    _remove_oldest(newest)
    assert sorted(tmp_path.iterdir()) == [newest, *traces[-(KEPT - 1) :]]


def test_what_is_recorded_and_what_users_put_there_stays(
    traces: list[Path], tmp_path: Path
) -> None:
    recorded = TraceFile.open(traces[0])
    named, link = tmp_path / "load.trace", tmp_path / "1999-01-01T00-00-00.trace"
    written(named, 0)
    traces[1].unlink()
    traces[1].write_text("a letter")
    os.utime(traces[1], (1, 1))
    link.symlink_to("nowhere")
    os.utime(link, (0, 0), follow_symlinks=False)
    _remove_oldest(traces[-1])
    assert set(tmp_path.iterdir()) == {named, link, *traces[:2], *traces[-KEPT:]}
    recorded.close()
