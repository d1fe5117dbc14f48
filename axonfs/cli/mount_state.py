"""How commands get the state of a mount: from its worker, or from another user's status file.

Blocking. Another user's status file may say anything, so nothing in it is trusted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from axonfs.cli.client import ask, ask_worker
from axonfs.cli.default_mount import (
    HOW_TO_MOUNT,
    cache_to_ask,
    mount_to_look_at,
    own_mounts,
    where_mounted,
)
from axonfs.cli.output import note
from axonfs.client.health import health, mount_at
from axonfs.client.other_users import Other, is_ours, others, owner_of, state_of, unanswered
from axonfs.client.target import Target
from axonfs.client.transport import Sink, ignore
from axonfs.connection.mountinfo import Mount
from axonfs.errors import AccessDeniedError, AxonError, NotFoundError, UnavailableError

State: TypeAlias = dict[str, Any]

STATUS = {"op": "status"}


def state_source(mountpoint: str | None, target: Target) -> LiveState | CacheState:
    """What gives the state of a mount, or of the cache if nothing is mounted.

    Raises:
        AxonError: no such mount is there, or there are several.
    """
    if mountpoint is not None:
        return _noted(LiveState(Path(mountpoint), target))
    if ask_worker(target, STATUS) is not None:  # maybe in another mount namespace
        return CacheState(target)
    if not target.explicit_cache and len(own_mounts()) > 1:
        return LiveState(None, target)
    theirs = [] if target.explicit_cache else others()
    alive = [other for other in theirs if other.alive]
    if len(alive) == 1:
        return _noted(LiveState(alive[0].place, target))
    if not theirs or os.path.exists(target.settings.cache):
        return CacheState(target)
    raise _only_others(theirs)


def _only_others(theirs: list[Other]) -> AxonError:
    for other in theirs:
        note(state_of(other))
    alive = any(other.alive for other in theirs)
    return AxonError("you have no mount", hint=where_mounted() if alive else HOW_TO_MOUNT)


def _noted(live: LiveState) -> LiveState:
    if live.owner is not None:
        note(f"this is {live.owner}'s mount at {live.mountpoint}")
    return live


def _mounted(mountpoint: Path) -> Mount:
    found = mount_at(mountpoint)
    if found is None:
        what = "no AxonFS is mounted there"
        raise NotFoundError(what, path=str(mountpoint), hint=where_mounted())
    return found


def _with_cache(target: Target, cache: Path) -> Target:
    settings = replace(target.settings, cache=cache)
    return replace(target, settings=settings, explicit_cache=True)


def _status_of(mount: Mount) -> State:
    """The content of a mount's status file.

    Raises:
        AxonError: the mount does not answer, or this user may not read it.
    """
    state = health(mount)
    if state.state != "alive":
        raise unanswered(mount, state)
    return state.status


class CacheState:
    """The state of the configured cache, of its mount if it has one."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def read(self) -> State:
        """The state now.

        Raises:
            AxonError: the mount does not answer, or the cache cannot be used.
        """
        return dict(ask(self._target, STATUS)["status"])

    def doubted(self) -> AbstractContextManager[None]:
        """As `LiveState.doubted`."""
        return nullcontext()


class LiveState:
    """The state of one mount, which may end, hang and come back between two questions.

    Args:
        mountpoint: where it is; None chooses by `mount_to_look_at`.

    Raises:
        AxonError: no such mount is there now, or there are several.
    """

    def __init__(self, mountpoint: Path | None, target: Target) -> None:
        self._target = target
        self._mount = mount_to_look_at(target) if mountpoint is None else _mounted(mountpoint)
        self._cache = cache_to_ask(self._mount)
        self.mountpoint = self._mount.mountpoint

    @property
    def owner(self) -> str | None:
        """The other user whose mount it is; None if it is this user's, or this user is root."""
        return None if is_ours(self._mount) else owner_of(self._mount)

    def read(self) -> State:
        """The state now; takes up to some 15 s if the mount does not answer.

        Raises:
            AxonError: it is not mounted, or does not answer.
        """
        self._look()
        with self.doubted():
            answer = self._ask(STATUS) if self._cache else None
            return dict(answer["status"]) if answer else _status_of(self._mount)

    @contextmanager
    def doubted(self) -> Iterator[None]:
        """A block that looks into the state.

        Raises:
            AxonError: what another user's mount says of its state is malformed.
        """
        try:
            yield
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as exc:
            if self._mount.owner == os.geteuid():
                raise
            what = f"what {owner_of(self._mount)}'s mount says of its state is malformed"
            raise AxonError(what, path=str(self.mountpoint)) from exc

    def ask(self, request: dict[str, Any], sink: Sink = ignore) -> dict[str, Any]:
        """The answer of the mount's worker to another request; other events go to `sink`.

        Raises:
            AxonError: it is not mounted, it does not answer, or it is another user's.
        """
        self._look()
        if self._cache is None:
            who = " and ".join(dict.fromkeys(("root", owner_of(self._mount))))
            what = f"only {who} may ask this mount for it"
            raise AccessDeniedError(what, path=str(self.mountpoint))
        if (found := self._ask(request, sink)) is None:
            raise UnavailableError("its worker cannot be asked", path=str(self.mountpoint))
        return found

    def _ask(self, request: dict[str, Any], sink: Sink = ignore) -> dict[str, Any] | None:
        """The worker's answer; None if its socket is gone, say because its cache was removed."""
        assert self._cache is not None
        found = ask_worker(_with_cache(self._target, self._cache), request, sink)
        if found is None:
            self._cache = cache_to_ask(self._mount)  # another mount may have come in its place
        return found

    def _look(self) -> None:
        """Find the mount that is there now."""
        mount = mount_at(self.mountpoint)
        if mount is None:
            raise NotFoundError("it is not mounted now", path=str(self.mountpoint))
        if mount != self._mount:
            self._mount, self._cache = mount, cache_to_ask(mount)
