"""Carries requests to the running mount, or to an engine in this process where no mount runs.

The control socket carries requests to the worker that owns the cache; without one the same
axonfs.service answers here. Commands and `axonfs.Client` both ask through this module. Prints
nothing: what a person may want to know goes to `note`. Blocking; any thread.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from axonfs.call import Event, call, error_of
from axonfs.client.other_users import beside_root, roots, state_of
from axonfs.client.target import Target
from axonfs.errors import AxonError, BusyError, UnavailableError, UnsupportedError
from axonfs.rundir import owner_of
from axonfs.settings.settings import Settings

if TYPE_CHECKING:
    from axonfs.client.session import Session
    from axonfs.connection.mountinfo import Mount

Sink: TypeAlias = Callable[[Event], None]

LOOKS = frozenset({"search", "info", "versions", "export_plan"})
# What these do needs no lock on the cache: they work beside an owner that does not answer, but for
# `status`, which is about that owner, and for `path` if it has to make its directory.
READ_ONLY = frozenset(
    {
        "status",
        "search",
        "info",
        "versions",
        "list",
        "lock",
        "cache_list",
        "cache_stats",
        "cache_clean_plan",
        "cache_versions",
        "cache_rm_plan",
        "cache_prune_plan",
        "pin_check",
        "path",
        "export_plan",
    }
)
# These keep nothing, and have a cache of their own while another process has the usual one.
APART = frozenset({"warm"})

# Seconds to wait for other processes that use the cache without a mount. A command takes one, and a
# client in Python lets go of the cache after four.
PATIENCE = 60.0

# The variables of the hubs' own clients. Their files are the mount's to read as well.
_HUB_VARIABLES = {
    "hf": ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    "modelscope": ("MODELSCOPE_API_TOKEN",),
}


def ignore(event: Event) -> None:
    """A sink for requests whose progress is of no interest."""


@dataclass(frozen=True, slots=True)
class Transport:
    """How the requests of one target are answered.

    Args:
        note: hears what a person may want to know, such as which cache is used.
        here: answers a request in this process, with these settings.
    """

    target: Target
    note: Callable[[str], None]
    here: Callable[[Settings, Event, Sink], Event]

    def ask(self, request: Event, sink: Sink = ignore) -> Event:
        """The result of `request`; everything that happens before it goes to `sink`.

        Raises:
            AxonError: the request failed; it carries the exit code.
        """
        result = self.ask_worker(request, sink)
        if result is not None:
            return result
        op, settings = str(request["op"]), self.target.settings
        if op in LOOKS and not settings.registries:
            settings = self._with_registries(settings)
        elif op not in LOOKS | {"status"} and not self._own_cache():
            for text in beside_root(op, settings.cache):
                self.note(text)
        return self.here(settings, request, sink)

    def ask_worker(self, request: Event, sink: Sink = ignore) -> Event | None:
        """The result of `request` from a running mount of this user; None if there is no mount.

        Raises:
            AxonError: the request failed; it carries the exit code.
        """
        target = self.target
        if target.registries:
            request = {**request, "registries": list(target.registries)}
        if tokens := own_tokens(target.settings):
            request = {**request, "tokens": tokens}
        for cache in _caches(target):
            try:
                events = _events_of_worker(cache, request)
            except TimeoutError as exc:
                if request["op"] not in READ_ONLY - {"status"}:
                    raise _silent(cache) from exc
                return self._beside(cache, request, sink)
            if events is None:
                continue
            if cache != target.settings.cache and request["op"] not in READ_ONLY:
                self.note(f"using the cache of the mount, {cache}")
            return _result_of_worker(events, sink, cache)
        return None

    def _beside(self, cache: Path, request: Event, sink: Sink) -> Event:
        """The result from the cache of a mount that does not answer."""
        silent = _silent(cache)
        self.note(f"{silent}; this is from its cache")
        try:
            return self.here(replace(self.target.settings, cache=cache), request, sink)
        except BusyError as exc:  # that mount would have to do it
            raise silent from exc

    def _with_registries(self, settings: Settings) -> Settings:
        """The settings of what only looks: with the registries of root's mount, if it names any."""
        found = roots()
        if found and found[0].registries:
            self.note(f"using the registries of {found[0].title}")
            return replace(settings, registries=found[0].registries)
        if found and not found[0].alive:
            self.note(state_of(found[0]))
        return settings

    def _own_cache(self) -> bool:
        """Whether the cache is meant: something names it, or this user has used it."""
        settings = self.target.settings
        in_use = bool(settings.registries) and os.path.exists(settings.cache / "index.lmdb")
        return self.target.explicit_cache or in_use


def in_turn(ask: Callable[[], Event]) -> Event:
    """The result of `ask`, which is asked again while it needs a cache that another process uses.

    For short requests that programs make as they start, which several do at once.

    Raises:
        BusyError: it still does after PATIENCE seconds.
        AxonError: the request failed.
    """
    until, pause = time.monotonic() + PATIENCE, 0.1
    while True:
        try:
            return ask()
        except BusyError as exc:
            if not exc.transient or time.monotonic() >= until:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 1.0)  # each question costs the owner some time of a processor


def own_tokens(settings: Settings) -> dict[str, str]:
    """The tokens that this command would use by itself: a mount's environment may have others."""
    found = {
        hub: next((os.environ[name] for name in names if os.environ.get(name)), "").strip()
        for hub, names in _HUB_VARIABLES.items()
    }
    if not settings.registries:  # then it is for the first one of the mount
        found[""] = os.environ.get("AXONFS_TOKEN", "").strip()
    return {**settings.tokens, **{name: token for name, token in found.items() if token}}


def _caches(target: Target) -> Iterator[Path]:
    """The cache that is configured; else, if none is, the cache of the only mount."""
    yield target.settings.cache
    if not target.explicit_cache and (found := cache_of_only_mount()) is not None:
        yield found


def cache_of_only_mount() -> Path | None:
    """The cache of this user's one mount, if there is just one: another's may say what it likes."""
    from axonfs.connection.mountinfo import mounts

    own = [mount for mount in mounts() if mount.owner == os.geteuid()]
    caches = {cache for mount in own if (cache := cache_of(mount))}
    return Path(caches.pop()) if len(caches) == 1 else None


def cache_of(mount: Mount) -> str | None:
    """As its holder says, which need not answer; else, in a container say, as the mount does."""
    from axonfs.client.health import health
    from axonfs.daemon.holders import holder_of

    holder = holder_of(mount)
    found = str(holder.cache) if holder else health(mount).status.get("cache")
    return found if isinstance(found, str) and "\0" not in found else None


def _events_of_worker(cache: Path, request: Event) -> Iterator[Event] | None:
    """The worker's events; None if no worker runs on this cache that would answer this user."""
    events = iter(call(cache, request))
    try:
        first = next(events)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError, PermissionError):
        return None
    except ConnectionError as exc:  # it ended while it was asked
        raise UnavailableError(_WENT_AWAY, hint=_AGAIN) from exc
    except StopIteration:
        return iter(())
    return _chain(first, events)


def _chain(first: Event, rest: Iterator[Event]) -> Iterator[Event]:
    yield first
    yield from rest


def _silent(cache: Path) -> AxonError:
    """What to say of a mount whose worker is stopped or stuck."""
    from axonfs.daemon.holders import silence

    what, hint = silence(owner_of(cache))
    return UnavailableError(what, source=str(cache), hint=hint)


def _result_of_worker(events: Iterator[Event], sink: Sink, cache: Path) -> Event:
    try:
        result = _result_of(events, sink)
    except TimeoutError as exc:
        raise _silent(cache) from exc
    except ConnectionError as exc:
        raise UnavailableError(_WENT_AWAY, hint=_AGAIN) from exc
    if result is None:
        raise UnavailableError(_WENT_AWAY, hint=_AGAIN)
    return result


_WENT_AWAY, _AGAIN = "the mount went away before it was done", "run the command again to go on"


def settle(event: Event, sink: Sink) -> Event | None:
    """The result if this event is it; an error event is raised, any other goes to `sink`."""
    kind = event.get("event")
    if kind == "result":
        return event
    if kind == "error":
        raise error_of(event)
    sink(event)
    return None


def ask_here(settings: Settings, request: Event, sink: Sink) -> Event:
    """The result of `request` from an engine that is opened for it in this process.

    What only looks works beside another process that owns the cache, and without a usable cache.
    """
    with ExitStack() as stack:
        session = _open_session(settings, str(request["op"]), stack)
        return result_here(session, request, sink)


def _open_session(settings: Settings, op: str, stack: ExitStack) -> Session:
    from axonfs.client.session import Session

    owner = True
    try:
        return stack.enter_context(closing(Session(settings, owner=True)))
    except BusyError:
        if op not in READ_ONLY | APART:
            raise
        owner = op in APART
        if owner:
            settings = _apart(settings, stack)
    except UnsupportedError:
        if op not in LOOKS | APART:
            raise
        settings = _apart(settings, stack)
    return stack.enter_context(closing(Session(settings, owner=owner)))


def _apart(settings: Settings, stack: ExitStack) -> Settings:
    """The settings with an empty cache, which is removed in the end."""
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="axonfs-"))
    return replace(settings, cache=Path(directory))


def result_here(session: Session, request: Event, sink: Sink) -> Event:
    """The result of `request` from an engine in this process."""
    result = _result_of(session.events(request), sink)
    if result is None:
        raise AxonError("the request ended without a result")
    return result


def _result_of(events: Iterator[Event], sink: Sink) -> Event | None:
    """The result among `events`, which ends them; None if they end without one."""
    try:
        for event in events:
            if (result := settle(event, sink)) is not None:
                return result
    finally:
        if isinstance(events, Generator):  # so that the work is stopped if `sink` failed
            events.close()
    return None
