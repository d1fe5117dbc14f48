"""Asks the running mount, or does the same work in this process where no mount runs.

The control socket carries requests to the worker that owns the cache; without one an engine is
opened here and the same axonfs.service answers. Blocking; main thread only, since trio.run and
Ctrl-C belong to it.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from axonfs.call import Event, call
from axonfs.cli.options import Target
from axonfs.cli.other_users import beside_root, roots, state_of
from axonfs.cli.output import note
from axonfs.errors import AxonError, BusyError, UnavailableError, UnsupportedError, find
from axonfs.rundir import owner_of

if TYPE_CHECKING:
    import trio

    from axonfs.connection.mountinfo import Mount
    from axonfs.settings.settings import Settings

Sink: TypeAlias = Callable[[Event], None]

LOOKS = frozenset({"search", "info", "versions"})
# What these do needs no lock on the cache: they work beside an owner that does not answer, but for
# `status`, which is about that owner.
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
        "pin_check",
    }
)

# The variables of the hubs' own clients. Their files are the mount's to read as well.
_HUB_VARIABLES = {
    "hf": ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    "modelscope": ("MODELSCOPE_API_TOKEN",),
}


def ask(target: Target, request: Event, sink: Sink = lambda event: None) -> Event:
    """The result of `request`; everything that happens before it goes to `sink`.

    Raises:
        AxonError: the request failed; it carries the exit code.
    """
    result = ask_worker(target, request, sink)
    if result is not None:
        return result
    op, settings = str(request["op"]), target.settings
    if op in LOOKS and not settings.registries:
        settings = _with_registries(settings)
    elif op not in LOOKS | {"status"} and not (target.explicit_cache or _is_set_up(settings)):
        for text in beside_root(op, settings.cache):
            note(text)
    return _ask_here(settings, request, sink)


def _with_registries(settings: Settings) -> Settings:
    """The settings of what only looks: with the registries of root's mount, if it names any."""
    found = roots()
    if found and found[0].registries:
        note(f"using the registries of {found[0].title}")
        return replace(settings, registries=found[0].registries)
    if found and not found[0].alive:
        note(state_of(found[0]))
    return settings


def _is_set_up(settings: Settings) -> bool:
    """Whether this user has a cache and a registry of their own, and so means these."""
    return bool(settings.registries) and os.path.exists(settings.cache / "index.lmdb")


def ask_worker(target: Target, request: Event, sink: Sink = lambda event: None) -> Event | None:
    """The result of `request` from a running mount of this user; None if there is none to ask.

    Raises:
        AxonError: the request failed; it carries the exit code.
    """
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
            note(f"{_silent(cache)}; this is from its cache")
            return _ask_here(replace(target.settings, cache=cache), request, sink)
        if events is None:
            continue
        if cache != target.settings.cache and request["op"] not in READ_ONLY:
            note(f"using the cache of the mount, {cache}")
        return _result(events, sink, cache)
    return None


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
    """The cache that is configured; else, if nobody named one, that of the only mount there is."""
    yield target.settings.cache
    if not target.explicit_cache and (found := cache_of_only_mount()) is not None:
        yield found


def cache_of_only_mount() -> Path | None:
    """The cache of this user's one mount, if there is just one: another's may say what it likes."""
    from axonfs.connection.mountinfo import mounts

    own = [mount for mount in mounts() if mount.owner == os.geteuid()]
    caches = {cache for mount in own if (cache := _cache_of(mount))}
    return Path(caches.pop()) if len(caches) == 1 else None


def _cache_of(mount: Mount) -> str | None:
    """As its holder says, which need not answer; else, in a container say, as the mount does."""
    from axonfs.cli.health import health
    from axonfs.daemon.holders import holder_of

    holder = holder_of(mount)
    return str(holder.cache) if holder else health(mount).status.get("cache")


def _events_of_worker(cache: Path, request: Event) -> Iterator[Event] | None:
    """The worker's events; None if no worker runs on this cache that would answer this user."""
    events = iter(call(cache, request))
    try:
        first = next(events)
    except (FileNotFoundError, ConnectionRefusedError, PermissionError):
        return None
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


def _result(events: Iterator[Event], sink: Sink, cache: Path) -> Event:
    try:
        for event in events:
            if (result := settle(event, sink)) is not None:
                return result
    except TimeoutError as exc:
        raise _silent(cache) from exc
    except ConnectionError as exc:
        raise AxonError(_WENT_AWAY, hint=_AGAIN) from exc
    raise AxonError(_WENT_AWAY, hint=_AGAIN)


_WENT_AWAY, _AGAIN = "the mount went away before it was done", "run the command again to go on"


def settle(event: Event, sink: Sink) -> Event | None:
    """The result if this event is it; an error event is raised, any other goes to `sink`."""
    kind = event.get("event")
    if kind == "result":
        return event
    if kind == "error":
        raise _told(event)
    sink(event)
    return None


def _ask_here(settings: Settings, request: Event, sink: Sink) -> Event:
    import trio

    from axonfs.cli.logs import log_like_messages

    log_like_messages()
    heeds_ctrl_c = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        return trio.run(_interruptible, settings, request, sink, True, heeds_ctrl_c)
    except BaseException as exc:
        unusable = request["op"] in LOOKS and find(exc, UnsupportedError) is not None
        if not unusable and (request["op"] not in READ_ONLY or find(exc, BusyError) is None):
            raise
    if not unusable:
        return trio.run(_interruptible, settings, request, sink, False, heeds_ctrl_c)
    with tempfile.TemporaryDirectory(prefix="axonfs-") as directory:  # it needs none to look
        settings = replace(settings, cache=Path(directory))
        return trio.run(_interruptible, settings, request, sink, True, heeds_ctrl_c)


def _told(event: Event) -> AxonError:
    """The error of an event; the worker may be of a version that tells its message alone."""
    facts = event.get("facts") or {"message": event.get("message", "failed without a cause")}
    parts = {name: facts.get(name) for name in ("spec", "path", "source", "hint")}
    error = AxonError(str(facts.get("message")), **parts)
    error.exit_code = int(event.get("exit_code", 1))
    return error


async def _interruptible(
    settings: Settings, request: Event, sink: Sink, owner: bool, heeds_ctrl_c: bool
) -> Event:
    """The result of `_serve_one`, which Ctrl-C cancels: raised in the midst of trio's own work,
    KeyboardInterrupt would leave coroutines behind that nothing awaits.
    """
    import trio

    async with trio.open_nursery() as nursery:
        if heeds_ctrl_c:
            await nursery.start(_cancel_on_ctrl_c, nursery.cancel_scope)
        result = await _serve_one(settings, request, sink, owner)
        nursery.cancel_scope.cancel()
        return result
    raise KeyboardInterrupt


async def _cancel_on_ctrl_c(scope: trio.CancelScope, task_status: trio.TaskStatus[None]) -> None:
    import trio

    with trio.open_signal_receiver(signal.SIGINT) as signals:
        task_status.started()
        await anext(aiter(signals))
    scope.cancel()  # a second Ctrl-C is Python's again


async def _serve_one(settings: Settings, request: Event, sink: Sink, owner: bool) -> Event:
    from contextlib import aclosing

    from axonfs.engine import open_engine
    from axonfs.service import Service

    async with (
        open_engine(settings, owner=owner) as engine,
        aclosing(Service(engine).handle(request)) as events,
    ):
        async for event in events:
            if (result := settle(event, sink)) is not None:
                return result
    raise AxonError("the request ended without a result")
