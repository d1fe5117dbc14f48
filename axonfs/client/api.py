"""`axonfs.Client`: models of registries and hubs, from a Python program.

Above transport, which carries its requests, and file, which are the files that it opens. Blocking;
any thread may call it, and several at the same time.
"""

from __future__ import annotations

import io
import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from axonfs.call import Event
from axonfs.client import results
from axonfs.client.file import CachedFile, MountedFile
from axonfs.client.mounted import Mounted
from axonfs.client.target import Target, resolve_with_notes
from axonfs.client.transport import LOOKS, READ_ONLY, Sink, Transport, in_turn, result_here
from axonfs.connection.mounting import DEAD
from axonfs.errors import AxonError, MalformedError, NotFoundError, UnsupportedError
from axonfs.names import check_path
from axonfs.settings.settings import Settings
from axonfs.versions import parse_wanted

if TYPE_CHECKING:
    from axonfs.client.cached import Opened
    from axonfs.client.session import Session

log = logging.getLogger(__name__)

# One read of a small piece costs as much as one of this size, where no kernel reads ahead.
BUFFER_SIZE = 128 << 10


class Client:
    """Finds, fetches and reads models; beside a running mount, or without one.

    Beside a mount of this user the mount does the work, and files are read through it. Without one
    the client uses the cache in this process, and lets go of it a moment after its last use.

    Close it, or use it in a `with` block: that closes the files that it opened. Its errors are
    `axonfs.errors`.

    Args:
        registries: URLs of the registries to use instead of the configured ones.
        cache: directory of the local cache; then only a mount with this cache is used.
        cache_size: limit of the cache in bytes, or like "200G".
        offline: send nothing.
        deadline: seconds without progress before a read fails.
        streams: connections to one source that fetch at once, at the most.
        tokens: token by the URL of a registry.
        ca_bundle: PEM file of the certificate authorities to trust.

    What is left out is as for commands: from AXONFS_* variables, else the config file, else a
    default. Beside a mount `registries` and `tokens` count for the requests of this client; the
    others are the mount's own.

    A forked process may go on using the client. Clients can be pickled.
    """

    def __init__(
        self,
        *,
        registries: str | Sequence[str] = (),
        cache: str | os.PathLike[str] | None = None,
        cache_size: int | str | None = None,
        offline: bool | None = None,
        deadline: float | None = None,
        streams: int | None = None,
        tokens: Mapping[str, str] | None = None,
        ca_bundle: str | os.PathLike[str] | None = None,
    ) -> None:
        self._flags: dict[str, Any] = {
            "registries": (registries,) if isinstance(registries, str) else tuple(registries),
            "cache": None if cache is None else os.fsdecode(cache),
            "cache_size": cache_size,
            "offline": offline,
            "deadline": deadline,
            "streams": streams,
            "tokens": None if tokens is None else dict(tokens),
            "ca_bundle": None if ca_bundle is None else os.fsdecode(ca_bundle),
        }
        found = resolve_with_notes(self._flags, log.warning, flagged="an argument of axonfs.Client")
        target = Target.of(found, self._flags["registries"])
        self._transport = Transport(target, log.info, _here)
        self._mounted = Mounted(self._transport)
        self._files: weakref.WeakSet[MountedFile | CachedFile] = weakref.WeakSet()
        self._adding = threading.Lock()  # guards the set
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Close the files that this client opened. After that it refuses calls."""
        self._closed = True
        with self._adding:
            files = list(self._files)
        for file in files:
            file.close()

    def __enter__(self) -> Self:
        self._check()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        shown = {name: value for name, value in self._flags.items() if value not in (None, ())}
        shown.pop("tokens", None)
        return f"axonfs.Client({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], Client], tuple[dict[str, Any]]]:
        return _made, (self._flags,)

    def search(
        self, query: str, *, sources: str | Sequence[str] = ()
    ) -> list[results.ModelListing]:
        """The versions that match every word of `query`, best first; "" matches all.

        Args:
            sources: what to ask: "registry" (the default), "hf", "modelscope".
        """
        request = {"op": "search", "query": _text("query", query), "sources": _list(sources)}
        found = self._ask(request)
        return [results.listing(item) for item in found["models"]]

    def info(self, spec: str) -> results.ModelInfo:
        """Everything about one version: its files, where it comes from, and what of it is local.

        Args:
            spec: `namespace/name@version`; without a version the latest one, and a constraint
                such as `@^1.2` means the highest version that it allows.

        Raises:
            NotFoundError: there is no such version.
        """
        found = self._ask({"op": "info", "spec": _text("spec", spec)})
        return results.model_info(found["version"])

    def versions(self, name: str) -> results.Versions:
        """The versions of the model `namespace/name`, the oldest first.

        Raises:
            NotFoundError: there is no such model.
        """
        return results.versions(self._ask({"op": "versions", "model": _text("name", name)}))

    def pin(
        self,
        spec: str,
        *,
        include: str | Sequence[str] = (),
        exclude: str | Sequence[str] = (),
        progress: Callable[[results.Progress], object] | None = None,
    ) -> results.PinResult:
        """Fetch a version whole, check it, and keep it from eviction.

        A pin that was interrupted goes on where it stopped when it is asked for again.

        Args:
            spec: see `info`.
            include: globs of the files to pin; all if there are none. `*` also matches `/`.
            exclude: globs of the files to leave out.
            progress: called in this thread several times a second. What it raises stops the pin.

        Raises:
            NoSpaceError: it does not fit into the cache.
            BusyError: another process that is not a mount owns the cache.
        """
        request = {
            "op": "pin",
            "specs": [_text("spec", spec)],
            "include": _list(include),
            "exclude": _list(exclude),
        }

        def sink(event: Event) -> None:
            self._note(event)
            if progress is not None and event.get("event") == "progress":
                progress(results.progress(event))

        (item,) = self._ask(request, sink)["pins"]
        return results.pin_result(item)

    def path(self, spec: str, path: str | os.PathLike[str] = "", *, mounted: bool = False) -> Path:
        """The directory of a pinned version on the disk, or of a file in it.

        It has hard links to the files in the cache, which is checked first, and exists while the
        version is pinned. Whether there is such a file is not checked.

        Args:
            spec: see `info`; without a version the latest one that is pinned.
            mounted: return the version's directory in the running mount instead, pinned or not.

        Raises:
            NotFoundError: the version is not pinned; with `mounted`, there is no such version.
            AxonError: it is not complete; with `mounted`, nothing is mounted.
        """
        self._check()
        if mounted:
            found, directory = self._mounted.directory(_text("spec", spec), self._note)
        else:
            request = {"op": "path", "spec": _text("spec", spec)}
            answer = in_turn(lambda: self._ask(request))
            found, directory = answer["spec"], Path(answer["path"])
        return directory / _checked_path(found, path) if path else directory

    @overload
    def open(  # type: ignore[overload-overlap]  # 0 is an int too, as for Python's own `open`
        self, spec: str, path: str | os.PathLike[str], *, buffering: Literal[0]
    ) -> MountedFile | CachedFile: ...

    @overload
    def open(
        self, spec: str, path: str | os.PathLike[str], *, buffering: int = -1
    ) -> io.BufferedReader: ...

    def open(
        self, spec: str, path: str | os.PathLike[str], *, buffering: int = -1
    ) -> io.BufferedReader | MountedFile | CachedFile:
        """A file of a version, to be read in binary; it is seekable.

        Bytes that are not local are fetched when they are read, and verified before they are given.
        A read that fails raises `axonfs.errors.ReadError`, which is an OSError too.

        Args:
            spec: see `info`.
            path: of the file in the version, such as `config.json`.
            buffering: as of Python's `open`: 0 for a raw file, else the size of the buffer.

        Raises:
            NotFoundError: there is no such version, or no such file in it.
        """
        self._check()
        size = BUFFER_SIZE if buffering < 0 else buffering
        path = _checked_path(str(parse_wanted(_text("spec", spec))), path)
        raw = self._open_mounted(spec, path) or self._open_cached(spec, path)
        with self._adding:
            self._files.add(raw)
        return io.BufferedReader(raw, size) if size else raw

    def status(self) -> results.Status:
        """The state of the mount, or of the cache where nothing is mounted."""
        return results.status(self._ask({"op": "status"})["status"])

    def _open_mounted(self, spec: str, path: str) -> MountedFile | None:
        """The file in the mount; None if nothing is mounted, or the mount is dead."""
        mountpoint = self._mounted.mountpoint()
        if mountpoint is None:
            return None
        wanted = parse_wanted(spec)
        if wanted.constraint or self._transport.target.registries:
            named, directory = self._mounted.directory(spec, self._note)
        else:
            named, directory = str(wanted), mountpoint.joinpath(*wanted.spec.segments)
        try:
            return MountedFile(str(directory / path), named, path)
        except AxonError as exc:
            if exc.errno in DEAD:  # its process ended, and the kernel's mount is left
                self._mounted.forget()
                return None
            # The mount's own error says more than an errno, if there is one.
            self._transport.ask_worker({"op": "info", "spec": named})
            raise

    def _open_cached(self, spec: str, path: str) -> CachedFile:
        from axonfs.client import sessions  # which imports trio

        settings, named = self._transport.target.settings, spec

        def opened(elsewhere: bool) -> tuple[Session, Opened]:
            nonlocal named
            session, found = sessions.open_file(settings, named, path, elsewhere=elsewhere)
            named = found.spec  # opened again, it is the same version
            return session, found

        return CachedFile(opened, f"axonfs://{parse_wanted(spec)}/{path}")

    def _ask(self, request: Event, sink: Sink | None = None) -> Event:
        self._check()
        return self._transport.ask(request, sink or self._note)

    def _check(self) -> None:
        if self._closed:
            raise ValueError("the client is closed")

    @staticmethod
    def _note(event: Event) -> None:
        if event.get("event") == "note":
            log.info("%s", event.get("text"))


def _made(flags: dict[str, Any]) -> Client:
    return Client(**flags)


def _text(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    return value


def _list(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _checked_path(spec: str, path: str | os.PathLike[str]) -> str:
    path = _text("path", os.fspath(path))
    try:
        return check_path(path)
    except MalformedError as exc:
        raise NotFoundError("no such file", spec=spec, path=path) from exc


def _here(settings: Settings, request: Event, sink: Sink) -> Event:
    """The result of `request` from the session that this process has of the cache."""
    from axonfs.client import sessions  # which imports trio

    op = str(request["op"])
    try:
        writes, afresh = op not in READ_ONLY, op == "path"
        with sessions.leased(settings, writes=writes, afresh=afresh) as session:
            return result_here(session, request, sink)
    except UnsupportedError:  # the cache directory cannot be used, and is not needed to look
        if op not in LOOKS:
            raise
    with sessions.leased(settings, writes=False, temporary=True) as session:
        return result_here(session, request, sink)
