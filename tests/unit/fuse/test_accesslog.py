"""The lines of the access log, also of names that are made to forge some."""

from __future__ import annotations

import errno
import time
from typing import Any

import pytest
import trio.testing

from axonfs.errors import BusyError
from axonfs.fuse.accesslog import MOST_READERS, AccessLog, Lines
from axonfs.fuse.operations import Finished, Operations
from axonfs.vfs.journal import Known

HOSTILE = "a\n2026-11-30 \x1b[2J\u202e b\u2028\x9b"


def finished(when: float, **parts: Any) -> Finished:
    usual = Finished(when, "read", "a/b 1", 4096, 10, 0.25, 0, 7, "cat", "cold", 2)
    return usual._replace(**parts)


def test_a_line() -> None:
    when = 1_700_000_000.0625
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    made = (
        Lines()
        .of(
            [
                finished(when),
                finished(when + 1, errno=errno.EIO, size=0),
                finished(when + 1, operation="lookup", kind="", program="", pid=0, errno=9999),
            ],
            3,
        )
        .decode()
    )
    left_out, first, second, third = made.splitlines()
    assert left_out == "# 3 operations are left out: they came too fast"
    assert first == f"{clock}.062500 cat[7] read 10@4096 0.250000 cold a/b 1"
    assert second.endswith(".062500 cat[7] read 0@4096 0.250000 EIO a/b 1")
    assert third.endswith(".062500 ?[0] lookup - 0.250000 9999 a/b 1")


def test_names_forge_no_line() -> None:
    text = Lines().of([finished(1.0, path=HOSTILE, program=HOSTILE)], 0).decode()
    assert text.count("\n") == 1
    assert text.rstrip("\n").isprintable()
    assert text.split()[2:4] == ["a?2026-11-30_?[2J?_b??[7]", "read"]
    assert len(Lines().of([finished(1.0, path="x" * 9999, program="y" * 999)], 0)) < 4400


async def test_readers_have_lines_and_room_for_a_few(
    autojump_clock: trio.testing.MockClock,
) -> None:
    operations = Operations(Known())
    log = AccessLog(operations)
    readers = [log.file.begin(number % 2 == 1) for number in range(MOST_READERS)]
    with pytest.raises(BusyError, match="32 programs read the access log"):
        log.file.begin(False)
    assert (await readers[0].read(5), await readers[1].read(1 << 20)) == (
        b"# dat",
        b"# another worker answers from here on; what was answered meanwhile is missing\n",
    )
    assert await readers[0].read(1 << 20) == (
        b"e time program[pid] operation size@offset seconds result path\n"
    )
    assert not readers[0]
    assert operations.listeners == MOST_READERS
    for reader in readers:
        reader.close()
    assert operations.listeners == 0
    log.file.begin(False).close()
