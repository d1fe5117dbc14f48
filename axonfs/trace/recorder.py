"""Records what a mount does, while it has been told to: from one worker to the next, in one file.

The mount's setting names a file, or `axonfs trace start` does; what was said last counts, and a
small file in the cache's `run/` tells the next worker. Every TICK seconds what happened is written,
so a worker that is killed loses less than that. A fault of the file ends the recording, and no
reader notices; the log says why. Trio thread only; the file is written in worker threads.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import trio

from axonfs.call import Event
from axonfs.errors import AxonError, BusyError, NoSpaceError, UsageError
from axonfs.fetch import Fetcher
from axonfs.fuse.operations import Operations
from axonfs.names import printable
from axonfs.rundir import RUN
from axonfs.trace.file import MOST, TraceFile
from axonfs.trace.recording import Recording
from axonfs.trace.records import ASKED, Record, encoded
from axonfs.units import size
from axonfs.vfs.files import Files
from axonfs.waits import Waits

log = logging.getLogger(__name__)

T = TypeVar("T")

TICK = 0.25
# Seconds for which the disk of a trace may keep silent.
PATIENCE = 5.0
# The directory in the cache for traces that were started without a name, and how many it keeps:
# each may have 64 MiB, and most have less than one.
TRACES = "traces"
KEPT = 16
_NAME = "%Y-%m-%dT%H-%M-%S.trace"
_STATE = Path(RUN, "trace")


class Recorder:
    """The recording of one mount; at most one at a time.

    Args:
        about: the facts of this worker for the trace.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        files: Files,
        operations: Operations,
        waits: Waits,
        mountpoint: Path,
        about: Callable[[], dict[str, Any]],
    ) -> None:
        self._parts = fetcher, files, operations, waits
        self._cache = fetcher.store.directory
        self._mountpoint = mountpoint
        self._about = about
        self._recording: Recording | None = None
        self._ended: str | None = None  # why the last recording ended, if no command ended it
        self._writing = False  # a thread has the file
        self._lock = trio.Lock()
        self._began = trio.Event()

    def state(self) -> dict[str, Any]:
        """For `status`: the file, since when, its size; and why an earlier recording ended."""
        recording = self._recording
        return {
            "file": str(recording.file.path) if recording else None,
            "since": recording.since if recording else None,
            "bytes": recording.file.size if recording else 0,
            "ended": self._ended,
        }

    async def resume(self, setting: Path | None, *, first: bool) -> None:
        """Begin as the mount's setting says, or go on as the last worker did.

        Raises:
            AxonError: the `first` worker cannot record where the setting says.
        """
        if first:
            await trio.to_thread.run_sync(_forget, self._cache)
        path = await trio.to_thread.run_sync(_remembered, self._cache, setting)
        if path is None:
            return
        try:
            await self._begin(path)
        except AxonError as exc:
            if first and not isinstance(exc, NoSpaceError):
                raise
            await self._fail(str(exc))

    async def follow(self, setting: Path | None) -> None:
        """Record where the edited setting says.

        Raises:
            AxonError: that is not possible; nothing is recorded then.
        """
        async with self._lock:
            await self._end(ASKED)
            await trio.to_thread.run_sync(_forget, self._cache)
        if setting is not None:
            await self._begin(setting)

    async def start(self, request: Event) -> Event:
        """Begin to record into the file that the request names, or a new one in the cache.

        Raises:
            AxonError: it cannot be written, or the mount records already.
        """
        named = request.get("file")
        path = Path(named) if isinstance(named, str) else await _apart(_new, self._cache)
        await self._begin(path)
        if not isinstance(named, str):
            with suppress(AxonError, OSError):  # the next one removes what is left
                await _apart(_remove_oldest, path)
        await trio.to_thread.run_sync(_remember, self._cache, path)
        return self.state()

    async def stop(self, request: Event) -> Event:
        """End the recording.

        Raises:
            AxonError: there is none.
        """
        async with self._lock:
            state = self.state()
            if self._recording is None:
                why = f": {self._ended}" if self._ended else ""
                raise UsageError(f"the mount records no trace{why}", hint="axonfs trace start")
            await self._end(ASKED)
            await trio.to_thread.run_sync(_remember, self._cache, None)
        return state

    async def _begin(self, path: Path) -> None:
        async with self._lock:
            if self._recording is not None:
                what = f"the mount records a trace already, into {self._recording.file.path}"
                raise BusyError(what, hint="axonfs trace stop")
            if not path.is_absolute():
                raise UsageError("is not an absolute path", path=str(path))
            if path.is_relative_to(self._mountpoint):
                raise UsageError("is in the mount itself", path=str(path), hint="name another file")
            # In a thread: the path may lead into this mount by another name.
            file = await _apart(TraceFile.open, path)
            if file.size >= MOST:
                file.close()
                raise NoSpaceError(_full(file), path=str(path), hint="name another file")
            self._recording = Recording(file, *self._parts, self._about())
            self._ended = None
            await self._write()  # so that the file is a trace from here on
            if self._recording is None:
                raise AxonError(self._ended or "the trace cannot be written", path=str(path))
            log.info("recording a trace into %s", printable(str(path), 1000))
            self._began.set()

    async def run(self) -> None:
        """Write what happens, until cancelled; then write the rest."""
        try:
            while True:
                await self._began.wait()
                await trio.sleep(TICK)
                async with self._lock:
                    await self._write()
        finally:
            if (recording := self._recording) is not None and not self._writing:
                # The next worker goes on.
                with trio.CancelScope(shield=True), suppress(AxonError):
                    await _apart(_finish, recording.file, recording.leave())

    async def _write(self) -> None:
        if (recording := self._recording) is None:
            return
        records = recording.taken()
        try:
            if records:
                self._writing = True
                await _apart(_append, recording.file, records)
            self._writing = False
        except (OSError, AxonError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else exc
            await self._fail(f"the trace cannot be written: {why}")
        else:
            if recording.file.size >= MOST:
                await self._fail(_full(recording.file))

    async def _fail(self, why: str) -> None:
        """End the recording because of a fault."""
        self._ended = why
        log.warning("no trace is recorded: %s", why)
        await self._end(why)

    async def _end(self, why: str) -> None:
        if (recording := self._recording) is not None:
            self._recording, self._began = None, trio.Event()
            self._writing = False
            with suppress(AxonError):
                await _apart(_finish, recording.file, recording.leave(why))


async def _apart(work: Callable[..., T], *arguments: Any) -> T:
    """Do something with files in a thread, which may hang with its file system.

    Raises:
        AxonError: it took PATIENCE seconds; it may still be done.
    """
    with trio.move_on_after(PATIENCE):
        return await trio.to_thread.run_sync(work, *arguments, abandon_on_cancel=True)
    raise AxonError(f"the disk has not answered for {PATIENCE:.0f} s", hint="name another file")


def _new(cache: Path) -> Path:
    """A name for a new trace in the cache."""
    directory = cache / TRACES
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        raise AxonError(f"cannot be made: {exc.strerror}", path=str(directory)) from exc
    return directory / time.strftime(_NAME, time.gmtime())


def _remove_oldest(newest: Path) -> None:
    """Leave KEPT of the traces beside a new one; one that is being recorded stays, and so does
    what users put there."""
    others = [file for file in newest.parent.iterdir() if file != newest and _is_ours(file)]
    written = sorted((file.lstat().st_mtime, file) for file in others)
    for _, path in written[: -(KEPT - 1)]:
        with suppress(AxonError):
            file = TraceFile.open(path)
            path.unlink()
            file.close()


def _is_ours(file: Path) -> bool:
    try:
        return bool(time.strptime(file.name, _NAME))
    except ValueError:
        return False


def _append(file: TraceFile, records: list[Record]) -> None:
    file.append(encoded(records))


def _finish(file: TraceFile, records: list[Record]) -> None:
    with suppress(OSError):
        file.append(encoded(records))
    file.close()


def _full(file: TraceFile) -> str:
    return f"{printable(str(file.path), 1000)} is full: it has {size(MOST)}"


def _remembered(cache: Path, setting: Path | None) -> Path | None:
    """Where the last worker recorded, if a command said so; else where the setting says."""
    try:
        named = json.loads((cache / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return setting
    return Path(named) if isinstance(named, str) else None


def _remember(cache: Path, path: Path | None) -> None:
    """Tell the next worker; one that cannot be told does as the setting says."""
    with suppress(OSError):
        (cache / _STATE).write_text(json.dumps(path and str(path)), encoding="utf-8")


def _forget(cache: Path) -> None:
    with suppress(OSError):
        (cache / _STATE).unlink()
