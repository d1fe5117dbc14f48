"""A program in a pod: answers each line of its input with one line.

`read NAME` prints the digest of a file. `open NAME` opens one, `next` reads 64 KiB of it, and
`rest` prints the digest of all that was read of it. `list` prints the names, `write NAME` tries to
write.
Errors are printed by name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from pathlib import Path
from typing import BinaryIO


class Reader:
    def __init__(self, place: Path) -> None:
        self._place = place
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()

    def do(self, word: str, name: str) -> str:
        if word == "read":
            return hashlib.sha256((self._place / name).read_bytes()).hexdigest()
        if word == "list":
            return " ".join(sorted(os.listdir(self._place)))
        if word == "write":
            (self._place / name).write_bytes(b"x")
            return "written"
        if word == "open":
            self._file, self._digest = (
                (self._place / name).open("rb", buffering=0),
                hashlib.sha256(),
            )
            return "open"
        assert self._file is not None
        data = self._file.read(1 << 16) if word == "next" else self._file.read()
        self._digest.update(data)
        return str(len(data)) if word == "next" else self._digest.hexdigest()


def main() -> None:
    reader = Reader(Path(sys.argv[1]))
    for line in sys.stdin:
        word, _, name = line.strip().partition(" ")
        try:
            print(reader.do(word, name), flush=True)
        except OSError as exc:
            print(errno.errorcode.get(exc.errno or 0, "?"), flush=True)


if __name__ == "__main__":
    main()
