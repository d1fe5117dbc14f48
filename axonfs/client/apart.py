"""Runs a program that may hang in the kernel, and abandons it if it does. Blocking; any thread."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_LAST_MOMENT = 1.0  # seconds from the end of a program's output to its own


@dataclass(frozen=True, slots=True)
class Output:
    """What a program wrote; `code` is None if it did not end in time."""

    out: bytes
    err: bytes
    code: int | None


def run_apart(
    command: Sequence[str], patience: float, limit: int, env: Mapping[str, str] | None = None
) -> Output:
    """Run `command` for at most `patience` seconds; what it wrote until then is kept.

    Args:
        limit: bytes of each output that are read; then the program is killed.

    Raises:
        OSError: it cannot be started.
    """
    out, out_child = os.pipe2(os.O_CLOEXEC)
    err, err_child = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.posix_spawnp(
            command[0],
            list(command),
            os.environ if env is None else env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, out_child, 1),
                (os.POSIX_SPAWN_DUP2, err_child, 2),
            ],
        )
    except OSError:
        os.close(out)
        os.close(err)
        raise
    finally:
        os.close(out_child)
        os.close(err_child)
    whole = False
    try:
        content, whole = _drain(out, err, time.monotonic() + patience, limit)
    finally:
        os.close(out)
        os.close(err)
        code = _ended(pid, _LAST_MOMENT if whole else 0.0)
    return Output(content[out], content[err], code if whole else None)


def _ended(pid: int, patience: float) -> int | None:
    """The exit code of a child, which is killed after `patience` seconds; None if it was.

    One that is stuck in the kernel is left to init.
    """
    if (code := _reaped(pid, patience)) is None:
        os.kill(pid, signal.SIGKILL)
        _reaped(pid, 0.2)
    return code


def _reaped(pid: int, patience: float) -> int | None:
    deadline = time.monotonic() + patience
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.002)


def _drain(out: int, err: int, deadline: float, limit: int) -> tuple[dict[int, bytes], bool]:
    """What arrives at both pipes, and whether both ended in time."""
    pieces: dict[int, list[bytes]] = {out: [], err: []}
    left = dict.fromkeys(pieces, limit)
    waiting, poll = set(pieces), select.poll()  # a program may have more than select takes
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    while waiting:
        ready = poll.poll(max(deadline - time.monotonic(), 0) * 1000)
        for descriptor, _ in ready:
            piece = os.read(descriptor, 1 << 16)
            pieces[descriptor].append(piece)
            left[descriptor] -= len(piece)
            if not piece or left[descriptor] <= 0:
                waiting.discard(descriptor)
                poll.unregister(descriptor)
        if not ready:
            break
    return {number: b"".join(found) for number, found in pieces.items()}, not waiting
