"""A script that reads a whole index, which may be torn, in its own process: LMDB may crash on it.

Beside index; recovery.py runs it by its path, so that it imports little besides lmdb (40 ms).
Arguments: the index, the boot id in hex, and the path for a compacted copy (empty: no copy).
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import lmdb

# Exit codes: the index is torn; there is no room for the copy.
TORN, FULL = 3, 4


def _walk(path: Path, boot: bytes, fresh: str) -> None:
    """Read every record; after a boot, write a compacted copy to `fresh` unless it is empty."""
    # The owner is alone. Other processes may run beside a writer, and need LMDB's reader lock.
    lock = not fresh and Path(f"{path}-lock").exists()
    environment = lmdb.open(
        os.fsencode(path), subdir=False, readonly=True, create=False, lock=lock, max_dbs=16
    )
    written_boot = b""
    with environment.begin(buffers=True) as raw:
        for name in [bytes(key) for key, _ in raw.cursor()]:
            handle = environment.open_db(name, txn=raw, create=False)
            _walk_table(raw.cursor(handle), raw.stat(handle)["entries"])
            if name == b"meta":
                written_boot = bytes(raw.get(b"boot", b"", db=handle))
    if fresh and written_boot != boot:
        descriptor = os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        environment.copyfd(descriptor, compact=True)
        os.fsync(descriptor)


def _walk_table(cursor: Any, entries: int) -> None:
    last: bytes | None = None
    count = 0
    for key, value in cursor:
        current = bytes(key)
        if last is not None and current <= last:
            raise lmdb.CorruptedError("keys out of order")
        bytes(value)  # touches each page
        last, count = current, count + 1
    if count != entries:
        raise lmdb.CorruptedError("records are missing")


def main() -> int:
    """Run the script and return its exit code."""
    path, boot, fresh = sys.argv[1:4]
    try:
        _walk(Path(path), bytes.fromhex(boot), fresh)
    except lmdb.MemoryError:
        raise
    except (lmdb.DiskError, OSError) as exc:
        if isinstance(exc, OSError) and exc.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return FULL
    except lmdb.Error as exc:
        print(exc, file=sys.stderr)
        return TORN
    return 0


if __name__ == "__main__":
    sys.exit(main())
