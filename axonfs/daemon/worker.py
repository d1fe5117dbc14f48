"""The worker of a mount: an engine, a Vfs over it, and the FUSE session on the held connection."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

import trio

from axonfs._version import __version__
from axonfs.call import Event
from axonfs.connection.held import DONE, NO_HANDSHAKE, RELOAD, REPLACE, Held
from axonfs.connection.mountinfo import shown, top_at
from axonfs.daemon import control, stacks
from axonfs.daemon.possessions import manner_of
from axonfs.daemon.profile import profile
from axonfs.daemon.state import engine_state, log_place
from axonfs.engine import Engine, open_engine
from axonfs.errors import find
from axonfs.fuse import accesslog, openreply
from axonfs.fuse.accesslog import AccessLog
from axonfs.fuse.adapter import Access, Adapter
from axonfs.fuse.failures import Failures
from axonfs.fuse.notices import invalidate_attributes
from axonfs.fuse.operations import Operations
from axonfs.fuse.reads import NativeReads
from axonfs.fuse.session import HandshakeError, Session
from axonfs.http_client import why_no_records
from axonfs.names import Spec
from axonfs.observe.observer import Observer
from axonfs.service import Service
from axonfs.service.queries import pin_counts
from axonfs.settings.applied import (
    LIVE,
    Applied,
    keep_options,
    look,
    remounted,
    try_again,
    works,
)
from axonfs.settings.settings import Settings
from axonfs.store import in_memory
from axonfs.trace.recorder import Recorder
from axonfs.vfs import Vfs
from axonfs.vfs.journal import Journal
from axonfs.vfs.streams import Log
from axonfs.waits import Waits, nameless

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
# Requests that take a moment; a command does not mention that it waits for them.
_BRIEF = {"reload", "ping", "status"}


def work(applied: Applied, held: Held) -> int:
    """Serve the mount until it is unmounted or a signal arrives; returns one of held.py's codes.

    SIGTERM ends the worker; SIGHUP does too, and leaves unanswered requests to the next one.

    Raises:
        AxonError: it cannot be served.
    """
    # A terminal sends SIGINT to the holder too, which unmounts and then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A second SIGHUP must not end this process before its time. SIG_IGN would drop a blocked one.
    signal.signal(signal.SIGHUP, lambda *_: None)
    _die_with(held.holder)
    stacks.offer()
    try:
        return trio.run(_serve, applied, held)
    except* HandshakeError as group:
        log.warning("%s", find(group, HandshakeError))
    finally:  # at exit the interpreter resets its handlers, and SIGHUP would change the exit code
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    return NO_HANDSHAKE


def _die_with(holder: int) -> None:
    """End with the holder: the next holder starts a worker of its own for the same connection."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != holder:
        os.kill(os.getpid(), signal.SIGKILL)


async def _serve(applied: Applied, held: Held) -> int:
    async with open_engine(applied.settings, lock=held.lock) as engine:
        worker = Worker(engine, applied, held)
        with worker.observer.watching(applied.settings.metrics, first=held.first):
            gc.freeze()  # what is there now stays: to look through it takes 10 ms each time
            await worker.serve()
    return worker.ending


def _fixed(provenance: str) -> str | None:
    """What to do about the bandwidth where the config file does not say it."""
    if provenance == "flag":
        given = "--bandwidth"
    elif provenance.startswith("AXONFS_"):
        given = provenance
    else:
        return None
    return f"the mount was started with {given}, which holds until it is unmounted: mount it again"


def _access(settings: Settings) -> Access:
    uid = os.getuid() if settings.uid is None else settings.uid
    gid = os.getgid() if settings.gid is None else settings.gid
    return Access(uid, gid, settings.mode)


class Worker:
    """Puts the parts of one mount together and runs them.

    `ending` is the exit code that tells the holder why this process ends.
    """

    def __init__(self, engine: Engine, applied: Applied, held: Held) -> None:
        settings = engine.settings
        self.ending = DONE
        self._engine = engine
        self._applied = applied
        self._mountpoint = settings.mountpoint
        self._held = held
        self._since = time.time()
        self._under_way = control.UnderWay()
        self._failures = Failures()
        engine.fetcher.bandwidth.hint = _fixed(applied.provenance.get("bandwidth", ""))
        self._journal = Journal(held.journal)
        self._operations = Operations(self._journal.known, silent=accesslog.INODE)
        self._service = Service(engine, self.status)
        self.observer = Observer(
            engine.nursery,
            self.status,
            partial(pin_counts, engine.store),
            settings.cache,
            held.meters,
            failed=not (held.first or held.reloaded),
        )
        self._vfs = Vfs(
            engine.tree,
            engine.fetcher,
            self._status_file,
            self._journal,
            prefetcher=engine.prefetcher,
            access_log=self._access_log(),
        )
        self._native = NativeReads(
            self._vfs.files, self._failures, in_memory=in_memory(settings.cache)
        )
        self._session = Session(
            held,
            self._mountpoint,
            self._native,
            manner=manner_of(settings, applied.flags),
            passthrough=settings.passthrough,
        )
        self._waits = Waits(
            self._operations,
            self._vfs.place,
            lambda place: engine.fetcher.feed(place.entry),
            self._native.step_towards,
            lambda: engine.store.health.fault,
        )
        self._recorder = Recorder(
            engine.fetcher,
            self._vfs.files,
            self._operations,
            self._waits,
            self._mountpoint,
            self._about,
        )
        self._requests = {
            "reload": self._reload,
            "trace_start": self._recorder.start,
            "trace_stop": self._recorder.stop,
        }
        self._adapter = Adapter(
            self._vfs,
            self._failures,
            _access(settings),
            str(settings.cache),
            self._session.passthrough,
            self._session.pages,
            self._native,
            self._operations,
            keeps_listings=self._session.keeps_listings,
        )

    def _access_log(self) -> Log | None:
        """The access log; None without the extension: then no signal would end its readers."""
        return AccessLog(self._operations).file if openreply.extension() else None

    async def serve(self) -> None:
        """Answer the kernel and commands until the mount or this worker has to end."""
        listening = socket.socket(fileno=self._held.control)
        await self._recorder.resume(self._engine.settings.trace, first=self._held.first)
        with self._session.mounted(self._adapter):
            await self._restore()
            async with trio.open_nursery() as nursery:
                await nursery.start(control.serve, listening, self._answer, self._under_way)
                nursery.start_soon(self._stop_on_signal)
                nursery.start_soon(self._announce)
                nursery.start_soon(self._recorder.run)
                nursery.start_soon(self._adapter.interrupts.watch)
                nursery.start_soon(self._operations.run)
                nursery.start_soon(self._waits.run)
                nursery.start_soon(self._engine.scrub.run, lambda: self._vfs.files.reads)
                await self._session.serve()
                nursery.cancel_scope.cancel()

    async def _restore(self) -> None:
        """Take over the handles that the kernel has from earlier workers."""
        for number, handle in self._journal.known.handles.items():
            self._session.passthrough.restore(handle.inode, number, handle.backing_id)
        await self._vfs.restore()

    async def _announce(self) -> None:
        """Tell the holder once the mount answers; from then on tell the kernel what changes."""
        session = self._session
        await session.agreed.wait()
        connection = self._shown()
        with self._engine.changes.watched(self._ask_again):
            if self._held.reloaded:  # with other settings, names may exist that did not before
                session.forget_names()
            if connection is not None:
                session.set_readahead(connection)
            await trio.to_thread.run_sync(works, self._applied, self._held.settings)
            log.info("mounted at %s", self._mountpoint)
            if shortage := self._engine.evictor.shortage():
                log.warning("%s", shortage)
            self.observer.ready = True
            os.write(self._held.ready, b"1")
            os.close(self._held.ready)
            await trio.sleep_forever()

    def _shown(self) -> int | None:
        """The connection's number; None if another mount is on top.

        It asks the mount nothing: a process that waits for its own answer cannot be ended.
        """
        top = top_at(self._mountpoint)
        if top is None or not shown(self._mountpoint, self._held.connection):
            return None
        return top.device

    async def _answer(self, request: Event) -> AsyncGenerator[Event, None]:
        """The events that answer a command's request."""
        if (own := self._requests.get(str(request.get("op")))) is not None:
            yield {"event": "result", **await own(request)}
            return
        if request.get("op") == "profile":
            answers = profile(self._operations, request.get("seconds"))
        else:
            answers = self._service.handle(request)
        async with aclosing(answers) as events:
            async for event in events:
                yield event

    async def _reload(self, request: Event) -> Event:
        """Read the settings again; if they changed, apply them, or have the next worker do it.

        Raises:
            AxonError: they are invalid; the mount keeps its settings.
        """
        known = self._applied
        options = remounted(known, request.get("options"))
        found = await trio.to_thread.run_sync(look, known.flags, known.document, options)
        changed = known.changed(found)
        waits_for = [name for name in self._under_way.names if name not in _BRIEF]
        if options != known.options:
            await trio.to_thread.run_sync(keep_options, options, self._held.settings)
        live = bool(changed) and LIVE.issuperset(changed) and self._applied.fault is None
        if live:
            await self._apply_live(found)
        elif self._held.plain is None and (changed or self._applied.fault):
            await trio.to_thread.run_sync(try_again, self._held.settings)
            self._engine.nursery.start_soon(self._end_when_idle)
        return {
            "mountpoint": str(self._mountpoint),
            "worker": os.getpid(),
            "changed": changed,
            "origins": found.provenance,
            "file": str(found.file),
            "applied": self._held.plain is None,
            "live": live,
            "waits_for": waits_for,
        }

    async def _apply_live(self, found: Applied) -> None:
        """Apply settings that only differ in what this process can change while it works."""
        self._engine.fetcher.bandwidth.rate = found.settings.bandwidth
        self._engine.evictor.apply(found.settings.cache_limits)
        self.observer.serve_at(found.settings.metrics)
        if found.settings.trace != self._applied.settings.trace:
            await self._recorder.follow(found.settings.trace)
        self._applied = found
        await trio.to_thread.run_sync(works, found, self._held.settings)

    async def _end_when_idle(self) -> None:
        """End for the next worker once no command is being answered, which would be cut off."""
        await self._under_way.idle()
        if self.ending != REPLACE:  # the replaced program reads the settings anyway
            self.ending = RELOAD
        self._session.stop()

    async def _stop_on_signal(self) -> None:
        """End on SIGTERM; on SIGHUP end so that program and worker are replaced."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # the holder blocked it
            async for number in signals:
                if number == signal.SIGHUP:
                    self.ending = REPLACE
                    await trio.to_thread.run_sync(try_again, self._held.settings)
                self._session.stop()

    def _ask_again(self, digests: set[str], specs: set[Spec]) -> None:
        """Have the kernel ask again for the attributes of files and directories that changed."""
        inodes = self._vfs.inodes_of(digests)
        for spec in specs:
            inodes += self._vfs.inodes_above(spec)
        for inode in inodes:
            invalidate_attributes(inode)

    def _about(self) -> dict[str, Any]:
        """This worker, for a trace."""
        settings = self._applied.settings
        names = "streams", "bandwidth", "prefetch", "offline", "passthrough"
        return {
            "version": __version__,
            "pid": os.getpid(),
            "mountpoint": str(self._mountpoint),
            **{name: getattr(settings, name) for name in names},
        }

    def _status_file(self) -> dict[str, Any]:
        """The live state for status.json: which program waits is no affair of all users."""
        state = self.status()
        return nameless(state) if self._engine.settings.allow_other else state

    def status(self) -> dict[str, Any]:
        """The live state that `status --json` and status.json show."""
        return {
            "version": __version__,
            "pid": self._held.holder,
            "worker": {"pid": os.getpid(), "since": self._since, "ends": self._held.ends},
            "mountpoint": str(self._mountpoint),
            "since": self._since,
            "settings": self._applied.shown(),
            "settings_fault": self._applied.fault,
            "log": log_place(),
            "metrics": self.observer.report(),
            **engine_state(self._engine),
            "connection": self._session.state(),
            "extensions": {
                "_native": {"why_not": self._native.why_not},
                "_records": {"why_not": why_no_records()},
            },
            "reads": self._vfs.files.reads,
            "operations": self._operations.statistics(),
            "listeners": self._operations.listeners,
            **self._waits.report(),
            "handles": self._vfs.files.handles,
            "inodes": len(self._journal.known.nodes),
            "pinning": self._service.pinning.statistics(),
            "trace": self._recorder.state(),
            "open": self._vfs.files.open_files(),
            "failures": self._failures.recent(),
        }
