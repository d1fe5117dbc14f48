"""Answers a request with a stream of events.

Sits between the commands (or the control socket) and the engine. `Service` finds the operation of
a request; the operations are in the other modules. The work runs in the engine's nursery and
reports through a channel, since an async generator must not yield inside a nursery. Trio thread
only; scans of the whole index run in worker threads.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

import trio

from axonfs._version import __version__
from axonfs.call import error_event
from axonfs.catalog.tree import Version
from axonfs.engine import Engine
from axonfs.errors import AxonError, UsageError, fault_of
from axonfs.names import printable
from axonfs.service import (
    cache,
    dropping,
    exporting,
    lockfiles,
    paths,
    pins,
    queries,
    unpin,
    verify,
    warm,
)
from axonfs.service.context import Context, Event, texts_of
from axonfs.service.pinning import Pinning
from axonfs.settings.parsers import parse_token

log = logging.getLogger(__name__)

Operation = Callable[[Context, Event], Awaitable[Event]]

OPERATIONS: Mapping[str, Operation] = {
    "ping": queries.ping,
    "status": queries.status,
    "search": queries.search,
    "info": queries.info,
    "version": queries.version,
    "versions": queries.versions,
    "list": queries.list_local,
    "cache_list": cache.cache_list,
    "cache_stats": cache.cache_stats,
    "pin": pins.pin,
    "pin_check": pins.pin_check,
    "update": pins.update,
    "lock": lockfiles.lock,
    "pin_lock": lockfiles.pin_lock,
    "path": paths.path,
    "export_plan": exporting.export_plan,
    "unpin": unpin.unpin,
    "verify": verify.verify,
    "warm": warm.warm,
    "cache_clean": cache.cache_clean,
    "cache_clean_plan": cache.cache_clean_plan,
    "cache_versions": dropping.cache_versions,
    "cache_rm": dropping.cache_rm,
    "cache_rm_plan": dropping.cache_rm_plan,
    "cache_prune": dropping.cache_prune,
    "cache_prune_plan": dropping.cache_prune_plan,
}


class Service:
    """Answers requests over one engine.

    Args:
        live: the mount's state; without it the engine's own is shown and nothing is mounted.
    """

    def __init__(self, engine: Engine, live: Callable[[], dict[str, Any]] | None = None) -> None:
        self._engine = engine
        self._live = live or self._unmounted
        self.pinning = Pinning()

    async def handle(self, request: Event) -> AsyncGenerator[Event, None]:
        """The events of `request`: progress and notes, then one result or one error.

        Closing the generator (use `aclosing`) cancels the work.
        """
        send, receive = trio.open_memory_channel[Event](8)
        scope = trio.CancelScope()
        self._engine.nursery.start_soon(self._run, request, send, scope)
        try:
            async for event in receive:
                yield event
        finally:
            scope.cancel()  # before the channel closes, which the work would take for a fault
            receive.close()

    async def version(self, request: Event) -> Version:
        """The version that the `spec` of a request names, for a reader in this process.

        Raises:
            AxonError: it does not exist, or no source could be asked.
        """
        send, receive = trio.open_memory_channel[Event](math.inf)
        with send, receive:  # notes of a constraint's choice are of no interest to a reader
            return await queries.version_of(self._context(request, send), request)

    async def _run(
        self, request: Event, send: trio.MemorySendChannel[Event], scope: trio.CancelScope
    ) -> None:
        with scope, send:
            last = await self._outcome(request, send)
            try:
                await send.send(last)
            except trio.BrokenResourceError:
                log.debug("the client of %s has gone", printable(str(request.get("op"))))

    async def _outcome(self, request: Event, send: trio.MemorySendChannel[Event]) -> Event:
        try:
            name = str(request.get("op"))
            operation = OPERATIONS.get(name)
            if operation is None:
                raise UsageError(f"unknown request '{printable(name)}'")
            return {"event": "result", **await operation(self._context(request, send), request)}
        except BaseException as exc:
            if (fault := _fault(exc)) is None:
                raise
            return error_event(fault)

    def _context(self, request: Event, send: trio.MemorySendChannel[Event]) -> Context:
        registries = tuple(texts_of(request, "registries"))
        tree = self._engine.tree_for(registries, _tokens_of(request))
        return Context(self._engine, tree, self._live, send, self.pinning)

    def _unmounted(self) -> dict[str, Any]:
        """The state if nothing is mounted, in the form of a mount's status."""
        engine = self._engine
        return {
            "version": __version__,
            "pid": None,
            "mountpoint": None,
            "offline": engine.settings.offline,
            **engine.tree.outages.report(),
            "cache": str(engine.settings.cache),
            "cache_used": engine.store.usage(),
            "cache_limit": engine.evictor.limit(),
            "quarantined": queries.quarantine(engine.store),
            "failures": [],
        }


def _tokens_of(request: Event) -> dict[str, str]:
    """The tokens that the command sent; they are used for this request only."""
    tokens = request.get("tokens") or {}
    try:
        return {str(name): parse_token(token) for name, token in tokens.items()}
    except (ValueError, AttributeError) as exc:
        raise UsageError("the request's tokens are malformed") from exc


def _fault(exc: BaseException) -> AxonError | None:
    """The error for the client; None for exceptions that must propagate (a cancellation).

    A bug in one command is logged and reported. It must not end the mount that others read from.
    """
    if (known := fault_of(exc)) is not None:
        return known
    if isinstance(exc, Exception):
        log.error("a bug in a command", exc_info=exc)
        return AxonError(f"this is a bug: {type(exc).__name__}: {exc}")
    return None
