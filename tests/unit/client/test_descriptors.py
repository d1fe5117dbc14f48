"""A program that has more descriptors than select(2) takes may use a mount as well."""

from __future__ import annotations

import os
import resource
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs import call
from axonfs.client.apart import run_apart


@pytest.fixture(autouse=True)
def many_open_files() -> Iterator[None]:
    """All numbers that select takes are in use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2048)), hard))
    found = [os.open(os.devnull, os.O_RDONLY) for _ in range(1024)]
    try:
        with pytest.raises(ValueError, match="out of range in select"):
            select.select(found[-1:], [], [], 0)
        yield
    finally:
        for descriptor in found:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_program_in_a_process_of_its_own() -> None:
    script = "echo answer; echo complaint >&2; exit 3"
    found = run_apart(["sh", "-c", script], 20, 1000)
    assert (found.out, found.err, found.code) == (b"answer\n", b"complaint\n", 3)
    assert run_apart(["sh", "-c", "echo so far; exec sleep 60"], 0.5, 1000).code is None


def test_an_answer_of_the_mount() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"{}\n")
        assert call._received(ours, Path("/cache")) == b"{}\n"
