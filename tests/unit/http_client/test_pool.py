"""Buffers for bodies are used again, and take little memory."""

from __future__ import annotations

import errno

import pytest

from axonfs import memory
from axonfs.http_client.pool import ReceiveBuffers

PIECE = 1 << 20


def test_a_buffer_of_the_size_is_used_again() -> None:
    buffers = ReceiveBuffers(4 * PIECE)
    first = buffers.take(PIECE)
    first[:4] = b"mark"
    buffers.put(first)
    assert bytes(buffers.take(PIECE // 2)[:4]) != b"mark"
    assert bytes(buffers.take(PIECE)[:4]) == b"mark"


def test_idle_buffers_go_where_those_in_use_take_their_room() -> None:
    buffers = ReceiveBuffers(4 * PIECE)
    old, new = buffers.take(PIECE), buffers.take(PIECE)
    old[:3], new[:3] = b"old", b"new"
    in_use = buffers.take(3 * PIECE)
    buffers.put(old)
    buffers.put(new)
    buffers.put(in_use)
    assert bytes(buffers.take(PIECE)[:3]) == b"new"
    assert bytes(buffers.take(PIECE)[:3]) != b"old"


def test_idle_buffers_go_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a buffer that could not be had takes no room from others later."""
    buffers, real = ReceiveBuffers(4 * PIECE), memory.buffer
    idle = buffers.take(PIECE)
    idle[:4] = b"mark"
    refusals = [OSError(errno.ENOMEM, "short")] * 3

    def short(size: int) -> memoryview:
        if refusals:
            raise refusals.pop()
        return real(size)

    monkeypatch.setattr(memory, "buffer", short)
    with pytest.raises(OSError, match="short"):
        buffers.take(4 * PIECE)
    buffers.put(idle)
    in_use = buffers.take(3 * PIECE)
    assert bytes(buffers.take(PIECE)[:4]) != b"mark"
    buffers.put(in_use)
    assert buffers.take(3 * PIECE) is in_use
