"""Which backing files stay open, and what becomes of a descriptor that is still used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from axonfs import descriptors
from axonfs.store.openfiles import MOST, OTHERS, Descriptor, OpenFiles, share


@dataclass(eq=False)
class File:
    accessed: float
    held: bool = True
    fd: Descriptor | None = None


def opened(path: Path) -> Descriptor:
    return Descriptor(os.open(path, os.O_RDONLY))


def is_open(number: int) -> bool:
    return Path(f"/proc/self/fd/{number}").exists()


def test_the_files_used_last_stay_open(tmp_path: Path) -> None:
    files, made = OpenFiles(8), [File(accessed=number) for number in (3, 1, 4, 0, 5, 9, 2, 6, 8, 7)]
    for file in made:
        files.add(file, opened(tmp_path))
    assert len(files) == 8
    assert {file.accessed for file in made if file.fd is None} == {0, 1}
    files.make_room()
    assert sorted(file.accessed for file in made if file.fd is not None) == [6, 7, 8, 9]


def test_a_descriptor_in_use_is_closed_after_its_use(tmp_path: Path) -> None:
    files, file = OpenFiles(8), File(1)
    files.add(file, opened(tmp_path))
    used = file.fd
    assert used is not None
    with files.lock:
        files.remove(file)
    number = int(used)
    assert is_open(number)
    del used
    assert not is_open(number)


def test_a_descriptor_is_closed_once(tmp_path: Path) -> None:
    descriptor = opened(tmp_path)
    number = int(descriptor)
    descriptor.close()
    again = os.open(tmp_path, os.O_RDONLY)
    assert again == number
    del descriptor
    assert is_open(again)
    os.close(again)


def test_a_file_that_is_held_no_more_is_not_kept_open(tmp_path: Path) -> None:
    files, file = OpenFiles(8), File(1, held=False)
    files.add(file, opened(tmp_path))
    assert (file.fd, len(files)) == (None, 0)


@pytest.mark.parametrize(
    ("limit", "files"),
    [(16, 8), (64, 16), (256, 64), (1024, 1024 - OTHERS), (20000, MOST), (1 << 30, MOST)],
)
def test_others_get_their_share(limit: int, files: int) -> None:
    assert share(limit) == files


@pytest.mark.parametrize("limit", [1024, 2048, 4096, 1 << 20])
def test_native_threads_get_their_share(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have duplicates; together with these some descriptors are left."""
    monkeypatch.setattr(descriptors, "limit", lambda: limit)
    assert OpenFiles().most + descriptors.for_native_threads() <= limit - OTHERS
