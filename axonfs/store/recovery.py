"""Checks an index before it is opened, since a crash of the machine may have torn it.

Beside index. It runs walk.py as a script in a child process: LMDB may segfault on a torn file, and
then the child dies instead of this process. Does not import LMDB.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

from axonfs import rundir
from axonfs.errors import CorruptError, NoSpaceError, UnsupportedError
from axonfs.store import walk

log = logging.getLogger(__name__)

# The signals that LMDB dies of on a torn file. Not SIGKILL, which means that memory ran out.
_TORN_SIGNALS = {
    -signal.SIGSEGV,
    -signal.SIGBUS,
    -signal.SIGABRT,
    -signal.SIGILL,
    -signal.SIGFPE,
}


def recover(path: Path, boot: bytes) -> None:
    """Move a torn index aside; after a boot, replace an intact one by a compacted copy.

    Raises:
        UnsupportedError: the index could not be checked; it is kept.
        NoSpaceError: the disk has no room for the copy; the index is kept.
    """
    fresh = Path(f"{path}.new")
    fresh.unlink(missing_ok=True)
    if not path.exists() or path.stat().st_size == 0:
        return
    cause = _fault(path, boot, fresh)
    if cause is not None:
        fresh.unlink(missing_ok=True)
        _move_aside(path, cause)
    elif fresh.exists():
        os.replace(fresh, path)


def inspect(path: Path, boot: bytes) -> None:
    """Check the index for a process that is not the owner; changes nothing.

    Raises:
        CorruptError: the index is torn.
        UnsupportedError: the index could not be checked.
    """
    if not path.exists() or path.stat().st_size == 0:
        return
    cause = _fault(path, boot, None)
    if cause is not None:
        raise CorruptError(
            f"the cache's index is unreadable: {cause}",
            source=str(path),
            hint="the next mount on this cache rebuilds it",
        )


def _fault(path: Path, boot: bytes, fresh: Path | None) -> str | None:
    """Why LMDB cannot read the index, None if it can."""
    child = _walk_in_child(path, boot, fresh)
    if child.returncode == 0:
        return None
    if child.returncode == walk.FULL:
        if fresh is not None:
            fresh.unlink(missing_ok=True)
        raise NoSpaceError(
            "the cache's disk is full, and after a boot its index must be copied",
            source=str(path.parent),
            hint=rundir.FREE_SPACE,
        )
    cause = child.stderr.strip()[-500:] or f"the check ended with {child.returncode}"
    if child.returncode != walk.TORN and child.returncode not in _TORN_SIGNALS:
        raise UnsupportedError(f"the cache's index could not be checked: {cause}", source=str(path))
    return cause


def _walk_in_child(path: Path, boot: bytes, fresh: Path | None) -> subprocess.CompletedProcess[str]:
    # Run by its path and not with -m, so that the child imports little besides lmdb: 40 ms.
    script = walk.__file__
    paths = [entry for entry in sys.path if entry] + [str(Path(script).parents[2])]
    return subprocess.run(
        [sys.executable, "-P", "-S", "-s", script, str(path), boot.hex(), str(fresh or "")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _move_aside(path: Path, cause: str) -> None:
    aside = Path(f"{path}.unreadable")
    os.replace(path, aside)
    Path(f"{path}-lock").unlink(missing_ok=True)
    log.warning("%s is unreadable (%s); moved to %s, rebuilding", path, cause, aside.name)
