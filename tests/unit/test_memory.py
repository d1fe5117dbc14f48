"""Buffers in large pages."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from axonfs import memory


@pytest.mark.parametrize("size", [1, 4096, memory.LARGE_PAGE, 3 * memory.LARGE_PAGE + 1])
def test_a_buffer_has_its_size_and_takes_every_byte(size: int) -> None:
    buffer = memory.buffer(size)
    assert len(buffer) == size
    buffer[:] = b"x" * size
    assert bytes(buffer) == b"x" * size


def test_a_machine_without_large_pages_has_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    assert len(memory.buffer(memory.LARGE_PAGE)) == memory.LARGE_PAGE


def test_a_large_buffer_lies_in_a_large_page() -> None:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[never]" in setting.read_text():
        pytest.skip("this kernel has no large pages")
    before = huge_kilobytes()
    buffers = [memory.buffer(2 * memory.LARGE_PAGE) for _ in range(4)]
    for buffer in buffers:
        buffer[:: mmap.PAGESIZE] = bytes(len(buffer) // mmap.PAGESIZE)
    assert huge_kilobytes() > before


def huge_kilobytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages:"))
