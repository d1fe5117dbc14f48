"""`axonfs mount`: an engine, a Vfs over it, and the FUSE session, until it is unmounted."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from axonfs import __version__, control
from axonfs.config import Settings
from axonfs.engine import Engine, open_engine
from axonfs.failures import Failures
from axonfs.fuse import Adapter, Session, mounted
from axonfs.fuse.adapter import invalidate_attributes
from axonfs.service import Service
from axonfs.vfs import Vfs

log = logging.getLogger(__name__)


def run(settings: Settings, mountpoint: Path, *, ready: Callable[[], None]) -> None:
    """Mount at `mountpoint` and serve until it is unmounted or a signal asks to stop.

    Args:
        ready: called once the mount answers.

    Raises:
        AxonError: it cannot be mounted; nothing is left behind.
    """
    trio.run(_serve, settings, mountpoint, ready)


async def _serve(settings: Settings, mountpoint: Path, ready: Callable[[], None]) -> None:
    async with open_engine(settings) as engine:
        mount = Mount(engine, mountpoint)
        with mounted(
            mount.adapter,
            mountpoint,
            allow_other=settings.allow_other,
            passthrough=settings.passthrough,
        ) as session:
            mount.session = session
            async with trio.open_nursery() as nursery:
                await nursery.start(control.serve, settings.cache, mount.service.handle)
                nursery.start_soon(_stop_on_signal, session)
                nursery.start_soon(_announce, session, mountpoint, ready)
                await session.serve()
                nursery.cancel_scope.cancel()
    log.info("unmounted %s", mountpoint)


async def _stop_on_signal(session: Session) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("unmounting on %s", signal.Signals(number).name)
            session.stop()


async def _announce(session: Session, mountpoint: Path, ready: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(os.stat, mountpoint / ".axonfs", abandon_on_cancel=True)
    await session.widen(mountpoint)
    log.info("mounted at %s", mountpoint)
    ready()


class Mount:
    """The parts of one mount that need each other."""

    def __init__(self, engine: Engine, mountpoint: Path) -> None:
        self._engine = engine
        self._mountpoint = mountpoint
        self._since = time.time()
        self.session: Session | None = None
        self.failures = Failures()
        self.vfs = Vfs(engine.tree, engine.fetcher, self.status)
        self.adapter = Adapter(self.vfs, self.failures, str(engine.settings.cache))
        self.service = Service(engine, self.status)
        engine.evictor.evicted = self._evicted

    def _evicted(self, digests: list[str]) -> None:
        for inode in self.vfs.inodes_of(set(digests)):
            invalidate_attributes(inode)

    def status(self) -> dict[str, Any]:
        """The live state, as `status --json` and status.json show it."""
        engine = self._engine
        return {
            "version": __version__,
            "pid": os.getpid(),
            "mountpoint": str(self._mountpoint),
            "since": self._since,
            "offline": engine.settings.offline,
            "registries": [
                {"url": url, "error": state.error, "since": state.since, "indexed": state.indexed}
                for url, state in engine.tree.states.items()
            ],
            "cache": str(engine.settings.cache),
            "cache_used": engine.store.usage(),
            "cache_limit": engine.evictor.limit(),
            "connection": self.session.state() if self.session else None,
            "reads": self.vfs.files.reads,
            "fetch": engine.fetcher.statistics(),
            "open": self.vfs.files.open_files(),
            "failures": self.failures.recent(),
        }
