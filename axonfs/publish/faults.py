"""What a fault of a registry's own disk means."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from axonfs.errors import AxonError, NoSpaceError
from axonfs.names import printable


@contextlib.contextmanager
def disk_faults(registry: str, again: str = "publish") -> Iterator[None]:
    """Turn each OSError into an AxonError that names the file and says what to do.

    Args:
        again: what to do again once the disk is repaired.
    """
    try:
        yield
    except OSError as exc:
        shown = printable(str(exc.filename or registry))
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(
                "the registry is full", source=shown, hint=f"make room and {again} again"
            ) from exc
        if exc.errno == errno.EFBIG:
            what = "the registry's file system takes no file of this size"
            hint = "FAT32 takes less than 4 GiB: format the disk with exFAT or ext4"
            raise AxonError(what, source=shown, hint=hint) from exc
        raise AxonError(
            f"{shown}: {exc.strerror or exc}", hint=f"{again} again once this is repaired"
        ) from exc
