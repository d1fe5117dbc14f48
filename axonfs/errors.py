"""The exceptions that this package raises on purpose.

Each class carries the errno that a reader of the mount gets and the exit code of a command that
fails with it. A message says what happened, to which model and file, from which source, and what
to do. The layer that detects a fault knows what happened and the source; the layers above add the
spec and the path with `naming` or `located`. So a fault that several readers share names each
reader's file.
"""

from __future__ import annotations

import copy
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self, TypeVar

from axonfs.descriptors import NO_THREAD, complain, is_shortage

# What to do where no registry is configured.
ADD_REGISTRY = "axonfs registry add URL adds one"

Kind = TypeVar("Kind", bound=BaseException)


class AxonError(Exception):
    """The base class: a fault with a message for a person.

    Args:
        what: what happened, one clause without a full stop.
        spec, path: the model and the file in it, where known.
        source: URL or directory that the fault came from, without credentials.
        hint: what the user can do, one clause.

    `transient` says that a retry may help, and `retry_after` how many seconds the source asks to
    wait before it. `overloaded` says that the source wants fewer requests at a time. `status` is
    the HTTP status of its response, and `code` its own word for the fault (X-Error-Code).
    """

    errno: int = errno.EIO
    exit_code: int = 1
    transient: bool = False
    retry_after: float | None = None
    status: int | None = None
    code: str | None = None
    overloaded: bool = False

    def __init__(
        self,
        what: str,
        *,
        spec: str | None = None,
        path: str | None = None,
        source: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.spec = spec
        self.path = path
        self.source = source
        self.hint = hint

    def __str__(self) -> str:
        subject = " ".join(_shown(part) for part in (self.spec, self.path) if part)
        text = f"{subject}: {self.what}" if subject else self.what
        if self.source:
            text += f" (from {self.source})"
        return f"{text}; {self.hint}" if self.hint else text

    def facts(self) -> dict[str, str | None]:
        """The parts of the message by name, for JSON output."""
        return {
            "message": self.what,
            "spec": self.spec,
            "path": self.path,
            "source": self.source,
            "hint": self.hint,
        }

    def located(
        self, *, spec: str | None = None, path: str | None = None, source: str | None = None
    ) -> Self:
        """A copy with these filled in where they are missing; this error is its cause.

        A path without a spec is left out if this error names a model, which says more.
        """
        twin = copy.copy(self)
        twin.spec = self.spec or spec
        twin.path = self.path or (path if spec or not self.spec else None)
        twin.source = self.source or source
        twin.__cause__ = self
        twin.__traceback__ = None
        return twin


def _shown(name: str) -> str:
    """A name for a message, with control characters replaced, so that it cannot forge a line."""
    return "".join(char if char.isprintable() else "?" for char in name)


class NotFoundError(AxonError):
    """No such model, version or file."""

    errno = errno.ENOENT


class NoRegistryError(NotFoundError):
    """No registry is configured, so only models on hubs can be found."""


class ReadOnlyError(AxonError):
    """A program tried to write to the read-only mount."""

    errno = errno.EROFS


class BadHandleError(AxonError):
    """A file handle that this mount did not issue."""

    errno = errno.EBADF


class AccessDeniedError(AxonError):
    """The source answered 401 or 403."""

    errno = errno.EACCES


class ChangedError(AxonError):
    """The source's bytes are not the ones that the manifest names: the size or the ETag differs."""

    errno = errno.ESTALE


class EtagError(ChangedError):
    """A response has no ETag or a different one than before, so its bytes may differ too."""


class UnrangedError(AxonError):
    """A site cache answered with the whole object in place of a range."""

    transient = True


class CorruptError(AxonError):
    """Bytes did not match their digest and were dropped."""


class UnverifiedError(AxonError):
    """A file has no digest to verify it with, and the user did not allow unverified reads."""


class UntrustedError(AxonError):
    """A version is not signed by anybody whom the setting `require_signature` names."""

    errno = errno.EPERM

    def located(
        self, *, spec: str | None = None, path: str | None = None, source: str | None = None
    ) -> Self:
        """As `AxonError.located`, without the path: it is no fault of a file."""
        return super().located(spec=spec, source=source)


class MalformedError(AxonError):
    """A manifest, index or chunk table is malformed; no part of it is used."""


class UnavailableError(AxonError):
    """The source could not be reached, or every retry failed."""


class ShortageError(UnavailableError):
    """This process lacks descriptors, memory or threads. That may pass; no source is at fault."""

    transient = True


class VanishedError(AxonError):
    """The manifest names an object that the source does not have."""


class DeadlineError(AxonError):
    """There was no progress within the deadline."""

    errno = errno.ETIMEDOUT


class NoSpaceError(AxonError):
    """The disk or the cache limit leaves no room. Only commands raise it, never a read."""

    errno = errno.ENOSPC


class ReadError(AxonError, OSError):  # type: ignore[misc]  # `errno` is always a number here
    """A file that `axonfs.Client` opened cannot be read; its cause is the error that says why.

    Also an OSError with that error's errno, which is what readers of files expect.
    """

    strerror: str = ""  # in place of OSError's, which pickling drops

    @classmethod
    def of(cls, error: AxonError) -> Self:
        """The error of a reader who meets `error`."""
        parts = {"spec": error.spec, "path": error.path}
        made = cls(error.what, **parts, source=error.source, hint=error.hint)
        made.errno = error.errno
        made.strerror = error.what
        return made


class OfflineError(AxonError):
    """The data is not local, and `--offline` forbids fetching it."""

    errno = errno.ENETUNREACH


class BusyError(AxonError):
    """Another process uses the cache or the mountpoint; the message names its pid."""

    errno = errno.EBUSY
    transient = True


class UnsupportedError(AxonError):
    """This machine lacks a feature that the command needs."""


class UsageError(AxonError):
    """The command line or a setting is invalid."""

    errno = errno.EINVAL
    exit_code = 2


class ClosedFileError(UsageError):
    """This user may not read a config file."""


class StoppedError(AxonError):
    """Ctrl-C ended the work; the message says what is done and how to resume."""

    errno = errno.EINTR
    exit_code = 130  # 128 + SIGINT, as shells expect it


class naming:  # noqa: N801 - reads as a phrase: `with naming(spec=spec):`
    """Have each AxonError that leaves the block name these too, as `AxonError.located`.

    Args:
        denied: what the user can do if the source denies access.
    """

    def __init__(
        self,
        *,
        spec: str | None = None,
        path: str | None = None,
        source: str | None = None,
        denied: str | None = None,
    ) -> None:
        self._spec = spec
        self._path = path
        self._source = source
        self._denied = denied

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, AxonError):
            named = exc.located(spec=self._spec, path=self._path, source=self._source)
            if self._denied is not None and isinstance(exc, AccessDeniedError):
                named.hint = self._denied
            raise named from exc


def find(exc: BaseException, kind: type[Kind]) -> Kind | None:
    """The first exception of `kind`: `exc` itself, or one in the groups that nurseries raise."""
    if isinstance(exc, BaseExceptionGroup):
        inner = (find(one, kind) for one in exc.exceptions)
        return next((found for found in inner if found is not None), None)
    return exc if isinstance(exc, kind) else None


def fault_of(exc: BaseException) -> AxonError | None:
    """The fault behind `exc`, which may be a nursery's exception group, as an AxonError.

    None for a bug, and for exceptions that must propagate, such as a cancellation.
    """
    if (known := find(exc, AxonError)) is not None:
        return known
    if find(exc, MemoryError) is not None:
        return ShortageError("this process is out of memory", hint="free some memory")
    if str(find(exc, RuntimeError)) == NO_THREAD:
        hint = "raise ulimit -u, or pids.max of its control group"
        return ShortageError("no further thread could be started", hint=hint)
    fault = find(exc, OSError)
    return refused(fault) if fault is not None else None


@contextmanager
def shortages() -> Iterator[None]:
    """A block out of which a shortage of descriptors, memory or threads is a ShortageError."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as exc:
        if not isinstance(fault := fault_of(exc), ShortageError):
            raise
        complain(fault)
        raise fault from exc


def refused(exc: OSError) -> AxonError:
    """An AxonError for a system call that failed."""
    what = f"the system refused: {exc.strerror or exc}"
    path = exc.filename if isinstance(exc.filename, str) else None
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(what, source=path, hint="free some space on the cache's disk")
    if is_shortage(exc):
        of_memory = exc.errno in (errno.ENOMEM, errno.ENOBUFS)
        hint = "free some memory" if of_memory else "raise ulimit -n"
        return ShortageError(what, source=path, hint=hint)
    return AxonError(what, source=path, hint="see axonfs status, and the kernel's log of the disk")
