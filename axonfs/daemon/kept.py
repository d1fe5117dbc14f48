"""Copies of a holder's descriptors, and how processes pass them on.

A FUSE connection lives as long as one process has its descriptor. A holder and the keeper that
started it may die together, so another process, a *guard*, has copies as well and gives them to
the next keeper. Both ends of that are here: `Guard` and `Guarded`. One request per message of a
SOCK_SEQPACKET socket: `get`, `put` with descriptors, or `drop`. Blocking; the guard has a thread.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from axonfs.call import peer
from axonfs.daemon.holders import KEEPER_NAME
from axonfs.rundir import reachable

log = logging.getLogger(__name__)

_PR_SET_NAME = 15
# A holder cannot be replaced without these.
NEEDED = frozenset({"lock", "control", "journal", "state", "device"})
MOST = 16
_BYTES = 4096
# Seconds until a guard without a free descriptor tries again.
AGAIN = 1.0
# Seconds for the other side, which does nothing else, to answer.
PATIENCE = 5.0


def name_process() -> None:
    """Give this process the name by which others know that it only keeps copies."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, KEEPER_NAME.encode(), 0, 0, 0)


class Kept:
    """Descriptors by name; closes those that it drops."""

    def __init__(self, found: Mapping[str, int] | None = None) -> None:
        self._found = dict(found or {})

    @property
    def descriptors(self) -> dict[str, int]:
        return dict(self._found)

    @property
    def whole(self) -> bool:
        """Whether the next holder could continue with them."""
        return set(self._found) >= NEEDED

    @property
    def alive(self) -> bool:
        """Whether they are whole and the connection has not ended."""
        if not self.whole:
            return False
        device = select.poll()
        device.register(self._found["device"], 0)  # POLLERR is always reported
        return not device.poll(0)

    def put(self, name: str, descriptor: int) -> None:
        self.drop(name)
        self._found[name] = descriptor

    def drop(self, name: str) -> None:
        if (descriptor := self._found.pop(name, None)) is not None:
            os.close(descriptor)

    def clear(self) -> None:
        for name in list(self._found):
            self.drop(name)


def _send(
    connection: socket.socket, message: Mapping[str, object], kept: Mapping[str, int]
) -> None:
    text = json.dumps({**message, "names": list(kept)}).encode()
    socket.send_fds(connection, [text], list(kept.values()))


def _receive(connection: socket.socket) -> tuple[dict[str, object], dict[str, int]] | None:
    """A message and its descriptors; None at the end.

    Raises:
        ValueError: it is malformed.
    """
    text, numbers, _, _ = socket.recv_fds(connection, _BYTES, MOST, socket.MSG_CMSG_CLOEXEC)
    try:
        if not text:
            return None
        message = json.loads(text)
        names = [str(name) for name in message.pop("names")]
        if len(names) != len(numbers) or len(set(names)) != len(names):
            raise ValueError("names and descriptors do not match")
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as exc:
        for number in numbers:
            os.close(number)
        raise ValueError(f"a malformed message: {exc}") from exc
    return message, dict(zip(names, numbers, strict=True))


def unlink_own(path: Path, identity: os.stat_result) -> None:
    """Remove a socket, unless another process has made its own there by now."""
    with suppress(OSError):
        if os.path.samestat(path.lstat(), identity):
            path.unlink()


class Guarded:
    """A keeper's side: its connection to the guard at `path`, which may come and go."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: socket.socket | None = None

    @property
    def connection(self) -> socket.socket | None:
        """The connection, which becomes readable when the guard ends; None without a guard."""
        return self._connection

    def connect(self) -> bool:
        """Whether there is a guard now."""
        if self._connection is not None:
            return True
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(PATIENCE)
        try:
            with reachable(self._path) as address:
                connection.connect(address)
            if peer(connection) not in (0, os.geteuid()):
                raise PermissionError("another user listens there")
        except OSError as exc:
            log.debug("no guard at %s: %s", self._path, exc)
            connection.close()
            return False
        self._connection = connection
        return True

    def get(self) -> dict[str, int]:
        """The copies that the guard has; empty without a guard."""
        return self._asked({"op": "get"}, {}) or {}

    def put(self, kept: Mapping[str, int], *, last: bool = False) -> bool:
        """Whether the guard has these copies now, in place of any others.

        Args:
            last: this keeper ends, so that the guard's will be the only ones.
        """
        return self._asked({"op": "put", "last": last}, kept) is not None

    def drop(self) -> None:
        """Have the guard close its copies."""
        self._asked({"op": "drop"}, {})

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _asked(
        self, message: Mapping[str, object], kept: Mapping[str, int]
    ) -> dict[str, int] | None:
        if not self.connect():
            return None
        assert self._connection is not None
        try:
            _send(self._connection, message, kept)
            answer = _receive(self._connection)
        except (OSError, ValueError) as exc:
            log.warning("the guard at %s does not answer: %s", self._path, exc)
            answer = None
        if answer is None:
            self.close()
            return None
        return answer[1]


class Guard:
    """Has copies for the keepers that connect to `path`; answers them in threads."""

    def __init__(self, path: Path) -> None:
        self.kept = Kept()
        self._changed = threading.Condition()  # guards what follows, and `kept`
        self._connections: set[socket.socket] = set()
        self._sole = False  # whether nobody else has the copies
        self._closing = False
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with reachable(path) as address:
            self._listening.bind(address)
        path.chmod(0o600)
        self._listening.listen(MOST)
        self._identity = os.stat(path)
        threading.Thread(target=self._accept, name="guard", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it has the copies of a connection that has not ended."""
        with self._changed:
            return self.kept.alive

    @property
    def sole(self) -> bool:
        """Whether the connection would end with this process."""
        with self._changed:
            return self._sole and self.kept.alive

    def leave(self, seconds: float) -> bool:
        """Close the copies once a keeper has them too, or after this many seconds.

        Returns:
            Whether a keeper has them, or there is nothing that it could have.
        """
        with self._changed:
            self._changed.wait_for(lambda: not (self._sole and self.kept.alive), seconds)
            done = not (self._sole and self.kept.alive)
            # In one step: a keeper that ends now learns that it has the last copies.
            self._closing = True
            for connection in self._connections:
                connection.shutdown(socket.SHUT_RDWR)
            self.kept.clear()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        unlink_own(self._path, self._identity)
        return done

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError as exc:
                if self._closing:
                    self._listening.close()
                    return
                log.warning("the guard cannot take a keeper: %s", exc)
                time.sleep(AGAIN)  # the process is short of descriptors
                continue
            if peer(connection) not in (0, os.geteuid()):
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            with self._changed:
                self._connections.add(connection)
            try:
                while (request := _receive(connection)) is not None:
                    self._answer(connection, *request)
            except ValueError as exc:
                log.warning("a keeper was disconnected: %s", exc)
            finally:
                with self._changed:
                    self._connections.discard(connection)
                    self._sole |= not self._connections

    def _answer(
        self, connection: socket.socket, message: dict[str, object], brought: dict[str, int]
    ) -> None:
        given: dict[str, int] = {}
        with self._changed:
            if self._closing or message.get("op") not in ("get", "put", "drop"):
                Kept(brought).clear()
                raise ValueError("no such request, or the guard ends")
            if message["op"] == "get":
                given = self.kept.descriptors
            else:
                self.kept.clear()
                self.kept = Kept(brought)
            _send(connection, {}, given)
            self._sole = bool(message.get("last"))
            self._changed.notify_all()
