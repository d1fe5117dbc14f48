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
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from axonfs.client.cached import Opened
from axonfs.client.session import Session
from axonfs.errors import BusyError, NotFoundError
from axonfs.rundir import owner_of
from axonfs.settings.settings import Settings

# Of the system's temporary directory, for files that another process's cache does not have whole.
TEMPORARY_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class _Key:
    """Which cache: that of the settings, or a temporary one beside it."""

    cache: Path
    temporary: bool = False


@dataclass(frozen=True, slots=True)
class _Shared:
    """A session, and the settings that its clients asked for."""

    settings: Settings
    session: Session


_shared: dict[_Key, _Shared] = {}
_lock = threading.Lock()  # held while a session is opened or closed


@contextmanager
def leased(
    settings: Settings, *, writes: bool, afresh: bool = False, temporary: bool = False
) -> Iterator[Session]:
    """A session of the cache, kept until the block is left; see `lease`."""
    session = lease(settings, writes=writes, afresh=afresh, temporary=temporary)
    try:
        yield session
    finally:
        session.give_back()


def open_file(
    settings: Settings, spec: str, path: str, *, elsewhere: bool = False
) -> tuple[Session, Opened]:
    """A file of the cache, open in a session that is leased for it.

    What is not whole in the cache of another process is read through a temporary cache.

    Args:
        elsewhere: do so in any case.
    """
    for temporary in (True,) if elsewhere else (False, True):
        session = lease(settings, writes=False, temporary=temporary)
        try:
            opened = session.call(partial(session.files.open, spec, path))
        except BaseException:
            session.give_back()
            raise
        if opened is not None:
            return session, opened
        session.give_back()
    raise AssertionError("a temporary cache is this process's own")


def lease(
    settings: Settings, *, writes: bool, afresh: bool = False, temporary: bool = False
) -> Session:
    """A session of the cache that does not end before `give_back` is called.

    It owns the cache; unless `writes`, it may also read beside the process that does.

    Args:
        afresh: try again to own the cache, unless the session that reads it is in use.
        temporary: use a cache in the temporary directory in place of that of the settings.

    Raises:
        BusyError: another process owns the cache, or this one uses it with other settings.
        AxonError: the engine cannot be opened.
    """
    key = _Key(settings.cache, temporary)
    with _lock:
        if key in _inherited:
            raise _forked_too_late(settings.cache)
        if found := _shared.get(key):
            session = found.session
            owned = session.owner and session.settings == settings
            enough = owned or not (writes or (afresh and not session.leases))
            if found.settings == settings and enough and session.lease():
                return session
            if session.alive and session.leases:
                raise _in_use(settings.cache, same=found.settings == settings)
            session.close()
            del _shared[key]
        session = _temporary(settings) if temporary else _opened(settings, writes=writes)
        session.lease()
        _shared[key] = _Shared(settings, session)
        return session


def _opened(settings: Settings, *, writes: bool) -> Session:
    try:
        return Session(settings, owner=True, shared=True)
    except BusyError:
        if writes:
            raise
    try:
        return Session(settings, owner=False, shared=True)
    except NotFoundError:  # its owner is only setting it up
        return _temporary(settings)


def _temporary(settings: Settings) -> Session:
    directory = tempfile.TemporaryDirectory(prefix="axonfs-", ignore_cleanup_errors=True)
    limit = min(TEMPORARY_BYTES, shutil.disk_usage(directory.name).free // 2)
    settings = replace(settings, cache=Path(directory.name), cache_size=limit)
    settings = replace(settings, keep_free=None, cache_ttl=0.0, cache_quotas={})
    return Session(settings, owner=True, shared=True, ended=directory.cleanup)


def _in_use(cache: Path, *, same: bool) -> BusyError:
    if same:
        what = f"the cache is in use by process {owner_of(cache) or 'unknown'}"
        hint = "close the files that are open, and try again"
    else:
        what = "this program uses the cache with other settings"
        hint = "use one Client, or close the files that the other one has open"
    return BusyError(what, source=str(cache), hint=hint)


def close_all() -> None:
    """End every session of this process."""
    with _lock:
        for shared in _shared.values():
            shared.session.close()
        _shared.clear()


def _forked_too_late(cache: Path) -> BusyError:
    error = BusyError(
        "this process was forked while its parent had files of the cache open",
        source=str(cache),
        hint="fork before files are opened, start the process with spawn, or mount the models",
    )
    error.transient = False
    return error


def _before_fork() -> None:
    """Hold the lock over the fork, and end the sessions that nothing uses."""
    _lock.acquire()
    for key, shared in list(_shared.items()):
        if not shared.session.leases:
            shared.session.close()
            del _shared[key]


def _after_in_child() -> None:
    for key, shared in _shared.items():
        shared.session.abandon()
        _inherited[key] = shared  # kept, since its end would close the parent's index
    _shared.clear()
    _lock.release()


_inherited: dict[_Key, _Shared] = {}
atexit.register(close_all)
os.register_at_fork(
    before=_before_fork, after_in_parent=_lock.release, after_in_child=_after_in_child
)
