"""Makes the standard streams accept any text, and handles streams that are closed or full.

A terminal or a pipe may have any encoding: characters that it lacks become `?`. Cron and
supervisors may close the descriptors 0, 1 and 2. Then they are opened on /dev/null: otherwise the
next socket or database would get their numbers, and messages would be written into it. Main thread
only.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from typing import TextIO

_ASCII = codecs.lookup("ascii")
# ASCII under another name: click writes UTF-8 to a stream whose encoding is called ascii.
_PLAIN = codecs.CodecInfo(
    _ASCII.encode,
    _ASCII.decode,
    _ASCII.streamreader,
    _ASCII.streamwriter,
    _ASCII.incrementalencoder,
    _ASCII.incrementaldecoder,
    name="plain_ascii",
)
codecs.register(lambda name: _PLAIN if name == _PLAIN.name else None)


def prepare() -> None:
    """Prepare the standard streams at the start of a command."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number
        stream = getattr(sys, name)
        if stream is None:  # it was closed when the interpreter started
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
        elif isinstance(stream, io.TextIOWrapper):
            ascii_ = codecs.lookup(stream.encoding).name == _ASCII.name
            stream.reconfigure(encoding=_PLAIN.name if ascii_ else None, errors="replace")


def stdout_fault(exc: OSError) -> OSError | None:
    """The error if standard output cannot be written; None if `exc` comes from something else.

    The text that failed may be gone from the buffer, so one more byte is written as a test.
    """
    if (fault := _flush(sys.stdout)) is not None:
        return fault
    if exc.filename is not None or exc.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        return None
    try:
        sys.stdout.write("\n")
    except OSError as fault:
        return fault
    return _flush(sys.stdout)


def finish() -> OSError | None:
    """Flush the streams at the end; return the error of standard output, if any.

    A stream that fails is redirected to /dev/null. Otherwise the interpreter would flush it again
    and exit with 120.
    """
    fault = _flush(sys.stdout)
    if fault is not None:
        silence(sys.stdout)
    if _flush(sys.stderr) is not None:
        silence(sys.stderr)
    return fault


def silence(stream: TextIO) -> None:
    """Redirect `stream` to /dev/null."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


def _flush(stream: TextIO) -> OSError | None:
    try:
        stream.flush()
    except OSError as exc:
        return exc
    except ValueError:  # it is closed
        return OSError(errno.EBADF, os.strerror(errno.EBADF))
    return None
