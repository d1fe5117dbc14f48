"""The access log, `.axonfs/accesslog`: each request that was answered, as a line.

Above operations, whose listener each open handle has. What does not fit into the buffer of one read
comes with the next. Trio thread only.

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
            what = f"{MOST_READERS} programs read the access log, which is the most"
            raise BusyError(what, path="/".join(PATH), hint="end one of them")
        return Reader(self._operations, self._readers, _AGAIN if continued else HEAD)


class Reader:
    """What one handle reads. `first` is its first line; `readers` are all of the mount."""

    def __init__(self, operations: Operations, readers: set[Reader], first: bytes) -> None:
        self._operations = operations
        self._readers = readers
        self._listener = Listener()
        self._text, self._at = first, 0  # what is read from where on
        self._lines = Lines()
        operations.join(self._listener)
        readers.add(self)

    def __bool__(self) -> bool:
        return self._at < len(self._text) or bool(self._listener)

    async def read(self, size: int) -> bytes:
        """Wait for lines; returns from 1 to `size` bytes. Safe to cancel."""
        while self._at == len(self._text):
            await self._listener.wait()
            self._text, self._at = self._lines.of(*self._listener.take(_AT_ONCE)), 0
        # Shells read byte by byte, so the rest of megabytes is not copied each time.
        data = self._text[self._at : self._at + size]
        self._at += len(data)
        return data

    def close(self) -> None:
        """Stop listening."""
        self._readers.discard(self)
        self._operations.leave(self._listener)


class Lines:
    """Makes lines, of which there may be thousands at once."""

    def __init__(self) -> None:
        self._names: dict[tuple[int, str], str] = {}
        self._paths: dict[str, str] = {}

    def of(self, finished: list[Finished], left_out: int) -> bytes:
        """The lines of these operations, and one that says how many were left out."""
        lines = [f"# {left_out} operations are left out: they came too fast\n"] if left_out else []
        names, paths = self._names, self._paths
        for known in (names, paths):
            if len(known) > _AT_ONCE:
                known.clear()
        second, clock = 0, ""
        for when, operation, path, offset, size, took, error, pid, program, kind, _ in finished:
            if int(when) != second:
                second = int(when)
                clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            if (name := names.get((pid, program))) is None:
                name = names[pid, program] = f"{_word(program)}[{pid}]"
            if (shown := paths.get(path)) is None:
                shown = paths[path] = printable(path, _LONGEST_PATH)
            where = f"{size}@{offset}" if operation == "read" else "-"
            result = _named(error) if error else kind or "ok"
            micros = int((when - second) * 1_000_000)
            lines.append(
                f"{clock}.{micros:06} {name} {operation} {where} {took:.6f} {result} {shown}\n"
            )
        return "".join(lines).encode()


def _word(program: str) -> str:
    """A program's name as one word; it may hold any character."""
    return printable(program, _LONGEST_NAME).replace(" ", "_") or "?"


def _named(error: int) -> str:
    return errno.errorcode.get(error, str(error))
