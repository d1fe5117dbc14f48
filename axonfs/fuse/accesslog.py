"""The access log, `.axonfs/accesslog`: each request that was answered, as a line.

Above operations, whose listener each open handle has. A line is complete or not there at all, also
for a reader with a small buffer. Trio thread only.

    DATE TIME PROGRAM[PID] OPERATION SIZE@OFFSET SECONDS RESULT PATH

The fields are separated by one blank; only the path, which is the last one, may have blanks. Size
and offset are those of a read, else `-`. The result is `ok` or the error's name; of a read `cache`
or `cold`, of an open `served` or `passed_through`. Lines that begin with `#` say what is left out.
"""

from __future__ import annotations

import errno
import time

from axonfs.errors import BusyError
from axonfs.fuse.operations import Finished, Listener, Operations
from axonfs.names import printable
from axonfs.vfs.inodes import usual_number
from axonfs.vfs.paths import CONTROL
from axonfs.vfs.streams import ACCESS_LOG, Log

PATH = (CONTROL, ACCESS_LOG)
INODE = usual_number(PATH)
HEAD = b"# date time program[pid] operation size@offset seconds result path\n"
_AGAIN = b"# another worker answers from here on; what was answered meanwhile is missing\n"
# Each reader costs some memory, and keeps listening on.
MOST_READERS = 32
_AT_ONCE = 1024  # lines that are made for one read
_LONGEST_NAME, _LONGEST_PATH = 64, 4096


class AccessLog:
    """The access log of one mount."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._readers: set[Reader] = set()
        self.file = Log(PATH, self._begin)

    def _begin(self, continued: bool) -> Reader:
        """
        Raises:
            BusyError: there are too many readers.
        """
        if len(self._readers) >= MOST_READERS:
            what = f"{MOST_READERS} programs read the access log; no more may"
            raise BusyError(what, path="/".join(PATH), hint="end one of them")
        return Reader(self._operations, self._readers, _AGAIN if continued else HEAD)


class Reader:
    """What one handle reads. `first` is its first line; `readers` are all of the mount."""

    def __init__(self, operations: Operations, readers: set[Reader], first: bytes) -> None:
        self._operations = operations
        self._readers = readers
        self._listener = Listener()
        self._rest = first
        self._lines = Lines()
        operations.join(self._listener)
        readers.add(self)

    def __bool__(self) -> bool:
        return bool(self._rest or self._listener)

    async def read(self, size: int) -> bytes:
        """Wait for lines; returns from 1 to `size` bytes. Safe to cancel."""
        while not self._rest:
            await self._listener.wait()
            self._rest = self._lines.of(*self._listener.take(_AT_ONCE))
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def close(self) -> None:
        """Listen no more."""
        self._readers.discard(self)
        self._operations.leave(self._listener)


class Lines:
    """Makes lines; what many of them have in common is made once."""

    def __init__(self) -> None:
        self._second = 0
        self._clock = ""
        self._words: dict[str, str] = {}

    def of(self, finished: list[Finished], left_out: int) -> bytes:
        """The lines of these operations, and one that says how many were left out."""
        lines = [self._line(one) for one in finished]
        if left_out:
            lines.insert(0, f"# {left_out} operations are left out: they came too fast\n")
        return "".join(lines).encode()

    def _line(self, one: Finished) -> str:
        second = int(one.time)
        if second != self._second:
            self._second = second
            self._clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        error = errno.errorcode.get(one.errno, str(one.errno)) if one.errno else ""
        result = error or one.kind or "ok"
        where = f"{one.size}@{one.offset}" if one.operation == "read" else "-"
        return (
            f"{self._clock}.{int(one.time % 1 * 1e6):06} {self._name(one.program)}[{one.pid}]"
            f" {one.operation} {where} {one.seconds:.6f} {result} {self._path(one.path)}\n"
        )

    def _name(self, program: str) -> str:
        """A program's name as one word; it may hold any character."""
        return self._word(program, _LONGEST_NAME).replace(" ", "_") or "?"

    def _path(self, path: str) -> str:
        return self._word(path, _LONGEST_PATH)

    def _word(self, text: str, longest: int) -> str:
        found = self._words.get(text)
        if found is None:
            if len(self._words) >= _AT_ONCE:
                self._words.clear()
            found = self._words[text] = printable(text, longest)
        return found
