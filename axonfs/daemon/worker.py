"""The worker of a mount: an engine, a Vfs over it, and the FUSE session on the held connection."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import trio

from axonfs._version import __version__
from axonfs.call import Event
from axonfs.connection.held import DONE, NO_HANDSHAKE, RELOAD, REPLACE, Held
from axonfs.connection.mountinfo import shown
from axonfs.daemon import control
from axonfs.engine import Engine, open_engine
from axonfs.errors import find
from axonfs.fuse import Adapter, HandshakeError, Session, serving
from axonfs.fuse.adapter import Access, invalidate_attributes
from axonfs.fuse.failures import Failures
from axonfs.names import Spec
from axonfs.service import Service
from axonfs.service.queries import quarantine
from axonfs.settings.applied import Applied, look, try_again, works
from axonfs.settings.settings import Settings
from axonfs.vfs import Vfs
from axonfs.vfs.journal import Journal

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
# Requests that are answered in a moment: no command has to say that it waits for them.
_BRIEF = {"reload", "ping", "status"}


def work(applied: Applied, held: Held) -> int:
    """Serve the mount until it is unmounted or a signal says otherwise; how it ended.

    SIGTERM ends it; SIGHUP leaves what is unanswered to the next worker.

    Raises:
        AxonError: it cannot be served.
    """
    # A terminal sends it to the holder as well, which unmounts, and sees to the end of this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A second one must not end it while it lets go. Not SIG_IGN, which drops what waits blocked.
    signal.signal(signal.SIGHUP, lambda *_: None)
    _die_with(held.holder)
    try:
        return trio.run(_serve, applied, held)
    except* HandshakeError as group:
        log.warning("%s", find(group, HandshakeError))
    finally:  # the interpreter gives its handlers up before it ends, and how that was would be lost
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    return NO_HANDSHAKE


def _die_with(holder: int) -> None:
    """Without its holder a worker would serve a connection that the next holder's one serves."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != holder:
        os.kill(os.getpid(), signal.SIGKILL)


async def _serve(applied: Applied, held: Held) -> int:
    settings, mountpoint = applied.settings, applied.settings.mountpoint
    async with open_engine(settings, lock=held.lock) as engine:
        mount = Mount(engine, applied, held)
        listening = socket.socket(fileno=held.control)
        with serving(
            mount.adapter,
            held,
            mountpoint,
            allow_other=settings.allow_other,
            passthrough=settings.passthrough,
        ) as session:
            mount.session = session
            try:
                await mount.restore()
                async with trio.open_nursery() as nursery:
                    await nursery.start(control.serve, listening, mount.answer, mount.under_way)
                    nursery.start_soon(mount.stop_on_signal)
                    nursery.start_soon(mount.announce, session)
                    nursery.start_soon(mount.adapter.interrupts.watch)
                    nursery.start_soon(engine.scrub.run, lambda: mount.vfs.files.reads)
                    await session.serve()
                    nursery.cancel_scope.cancel()
            finally:
                mount.session = None
    return mount.ending


def _log_place() -> str | None:
    """Where this process's log goes: a file or terminal, or the journal; None for a pipe."""
    place = os.readlink("/proc/self/fd/2")
    if os.environ.get("JOURNAL_STREAM") and place.startswith("socket:"):
        return "the journal"
    return place if place.startswith("/") else None


def _access(settings: Settings) -> Access:
    uid = os.getuid() if settings.uid is None else settings.uid
    gid = os.getgid() if settings.gid is None else settings.gid
    return Access(uid, gid, settings.mode)


class Mount:
    """The parts of one mount that need each other."""

    def __init__(self, engine: Engine, applied: Applied, held: Held) -> None:
        self._engine = engine
        self._applied = applied
        self._mountpoint = applied.settings.mountpoint
        self._held = held
        self._since = time.time()
        self._journal = Journal(held.journal)
        self.ending = DONE
        self.session: Session | None = None
        self._answers = False
        self._outdated: set[int] = set()
        self.failures = Failures()
        self.vfs = Vfs(
            engine.tree,
            engine.fetcher,
            self.status,
            self._journal,
            prefetcher=engine.prefetcher,
        )
        self.adapter = Adapter(
            self.vfs, self.failures, _access(engine.settings), str(engine.settings.cache)
        )
        self.under_way = control.UnderWay()
        self._service = Service(engine, self.status)
        engine.evictor.evicted = self._evicted
        engine.fetcher.began = self._changed
        engine.tree.found = self._found

    async def restore(self) -> None:
        """Answer for what earlier workers told the kernel."""
        for number, handle in self._journal.known.handles.items():
            self.adapter.passthrough.restore(handle.inode, number, handle.backing_id)
        await self.vfs.restore()

    async def announce(self, session: Session) -> None:
        """Tell the holder once the mount answers."""
        await session.agreed.wait()  # what follows may be known to the kernel from another worker
        connection = await trio.to_thread.run_sync(self._probe, abandon_on_cancel=True)
        self._answers = True
        self._ask_again([])
        if self._held.reloaded:  # what the kernel was told is missing may be there now
            session.forget_names()
        if connection is not None:
            session.set_readahead(connection)
        await trio.to_thread.run_sync(works, self._applied, self._held.settings)
        log.info("mounted at %s", self._mountpoint)
        os.write(self._held.ready, b"1")
        os.close(self._held.ready)

    def _probe(self) -> int | None:
        """Have the mount answer once: its connection. None if another mount lies on top of it."""
        if not shown(self._mountpoint, self._held.connection):
            return None
        return os.minor(os.stat(self._mountpoint / ".axonfs").st_dev)

    async def answer(self, request: Event) -> AsyncGenerator[Event, None]:
        """The events of a command's request."""
        if request.get("op") == "reload":
            yield {"event": "result", **await self._reload()}
            return
        async with aclosing(self._service.handle(request)) as events:
            async for event in events:
                yield event

    async def _reload(self) -> Event:
        """Look at the settings again, and have another worker apply them if they are others.

        Raises:
            AxonError: they are invalid; the mount keeps those that it has.
        """
        found = await trio.to_thread.run_sync(look, self._applied.flags)
        changed = self._applied.changed(found)
        waits_for = [name for name in self.under_way.names if name not in _BRIEF]
        if self._held.plain is None and (changed or self._applied.fault):
            await trio.to_thread.run_sync(try_again, self._held.settings)
            self._engine.nursery.start_soon(self._give_way)
        return {
            "mountpoint": str(self._mountpoint),
            "worker": os.getpid(),
            "changed": changed,
            "origins": found.provenance,
            "file": str(found.file),
            "applied": self._held.plain is None,
            "waits_for": waits_for,
        }

    async def _give_way(self) -> None:
        """End for the next worker, once no command is being answered: it would be cut off."""
        await self.under_way.idle()
        if self.ending != REPLACE:  # which another program does, and with the same settings
            self.ending = RELOAD
        if self.session is not None:
            self.session.stop()

    async def stop_on_signal(self) -> None:
        """End on SIGTERM, and for another worker on SIGHUP."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # the holder blocked it
            async for number in signals:
                if number == signal.SIGHUP:
                    self.ending = REPLACE
                    await trio.to_thread.run_sync(try_again, self._held.settings)
                if self.session is not None:
                    self.session.stop()

    def _evicted(self, digests: list[str]) -> None:
        self._engine.prefetcher.evicted(digests)
        self._changed(digests)

    def _changed(self, digests: list[str]) -> None:
        """How much is local of these objects."""
        self._ask_again(self.vfs.inodes_of(set(digests)))

    def _found(self, spec: Spec) -> None:
        """What is listed above a version."""
        self._ask_again(self.vfs.inodes_above(spec))

    def _ask_again(self, inodes: list[int]) -> None:
        """Have the kernel ask for these attributes again, once libfuse may tell it."""
        self._outdated.update(inodes)
        # The engine ends after the session, and may evict until then.
        while self._outdated and self._answers and self.session is not None:
            invalidate_attributes(self._outdated.pop())

    def _sources(self) -> dict[str, list[dict[str, Any]]]:
        """How registries and hubs answered last."""
        report = self._engine.tree.outages.report()
        allowed = self._engine.settings.allow_unverified
        for item in report["registries"]:
            item["allow_unverified"] = item["url"].rstrip("/") in allowed
        return report

    def status(self) -> dict[str, Any]:
        """The live state, as `status --json` and status.json show it."""
        engine = self._engine
        return {
            "version": __version__,
            "pid": self._held.holder,
            "worker": {"pid": os.getpid(), "since": self._since, "ends": self._held.ends},
            "mountpoint": str(self._mountpoint),
            "since": self._since,
            "offline": engine.settings.offline,
            "settings": self._applied.shown(),
            "settings_fault": self._applied.fault,
            **self._sources(),
            "log": _log_place(),
            "cache": str(engine.settings.cache),
            "cache_used": engine.store.usage(),
            "cache_limit": engine.evictor.limit(),
            "disk": {
                "fault": engine.store.health.fault,
                "since": engine.store.health.since,
                **engine.fetcher.overflow.statistics(),
            },
            "connection": self.session.state() if self.session else None,
            "reads": self.vfs.files.reads,
            "fetch": engine.fetcher.statistics(),
            "prefetch": engine.prefetcher.statistics(),
            "scrub": engine.scrub.statistics(),
            "quarantined": quarantine(engine.store),
            "open": self.vfs.files.open_files(),
            "failures": self.failures.recent(),
        }
