"""The sessions that the clients of this process share, one for each cache.

LMDB allows a process to open an index once, and a cache has one owner. So all clients of a cache
use one session, from a lease to its end.

A fork ends the sessions that nothing uses, so the child can open the cache. It cannot where its
parent has files open at the fork: the index that it inherits can be neither used nor closed. Any
thread.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from axonfs.client.session import Session
from axonfs.errors import BusyError
from axonfs.rundir import owner_of
from axonfs.settings.settings import Settings

_sessions: dict[Path, Session] = {}
_lock = threading.Lock()  # held while a session is opened or closed


@contextmanager
def leased(settings: Settings, *, writes: bool) -> Iterator[Session]:
    """A session of the cache, kept until the block is left; see `lease`."""
    session = lease(settings, writes=writes)
    try:
        yield session
    finally:
        session.give_back()


def lease(settings: Settings, *, writes: bool) -> Session:
    """A session of the cache that does not end before `give_back` is called.

    It owns the cache; unless `writes`, it may also read beside the process that does.

    Raises:
        BusyError: another process owns the cache, or this one uses it with other settings.
        AxonError: the engine cannot be opened.
    """
    with _lock:
        if settings.cache in _inherited:
            raise _forked_too_late(settings.cache)
        found = _sessions.get(settings.cache)
        if found is not None:
            suits = found.settings == settings and (found.owner or not writes)
            if suits and found.lease():
                return found
            if found.alive and found.leases:
                raise _in_use(found)
            found.close()
            del _sessions[settings.cache]
        session = _opened(settings, writes=writes)
        session.lease()
        _sessions[settings.cache] = session
        return session


def _opened(settings: Settings, *, writes: bool) -> Session:
    try:
        return Session(settings, owner=True, shared=True)
    except BusyError:
        if writes:
            raise
    return Session(settings, owner=False, shared=True)


def _in_use(session: Session) -> BusyError:
    cache = session.settings.cache
    if session.owner:
        what = "this program uses the cache with other settings"
        hint = "use one Client, or close the files that the other one has open"
        return BusyError(what, source=str(cache), hint=hint)
    what = f"the cache is in use by process {owner_of(cache) or 'unknown'}"
    return BusyError(what, source=str(cache), hint="close the files that are open, and try again")


def close_all() -> None:
    """End every session of this process."""
    with _lock:
        for session in _sessions.values():
            session.close()
        _sessions.clear()


def _forked_too_late(cache: Path) -> BusyError:
    return BusyError(
        "this process was forked while its parent had files of the cache open",
        source=str(cache),
        hint="fork before files are opened, start the process with spawn, or mount the models",
    )


def _before_fork() -> None:
    """Hold the lock over the fork, and end the sessions that nothing uses."""
    _lock.acquire()
    for cache, session in list(_sessions.items()):
        if not session.leases:
            session.close()
            del _sessions[cache]


def _after_in_child() -> None:
    for session in _sessions.values():
        session.abandon()
    _inherited.update(_sessions)  # kept, since their end would close the parent's index
    _sessions.clear()
    _lock.release()


_inherited: dict[Path, Session] = {}
atexit.register(close_all)
os.register_at_fork(
    before=_before_fork, after_in_parent=_lock.release, after_in_child=_after_in_child
)
