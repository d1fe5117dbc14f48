"""The directories that the kubelet wants volumes at: opened so that no link leads elsewhere.

Below connection/binding.py, whose calls take descriptors. No file of a volume is touched here:
what is removed is an empty directory that nothing is mounted on. Blocking; any thread.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import grpc

from axonfs.connection.binding import bind, mount_of, unbind
from axonfs.csi.refusal import RefusedError, invalid
from axonfs.mounttable import FILESYSTEM, Entry
from axonfs.names import printable

_OPEN = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# More mounts on one directory than repairs can have left.
_MOST = 64


def check_target(text: str, root: Path) -> PurePosixPath:
    """The target's path below `root`, the kubelet's directory.

    Raises:
        RefusedError: it is elsewhere, or not in its plain form.
    """
    path = PurePosixPath(text)
    plain = path.is_absolute() and ".." not in path.parts and str(path) == text
    if not plain or "\0" in text:
        raise invalid(f"'{printable(text)}' is not an absolute path in its plain form")
    if not path.is_relative_to(root) or len(path.relative_to(root).parts) < 2:
        raise invalid(f"'{printable(text)}' is not below {root}, the kubelet's directory")
    return path.relative_to(root)


class Target:
    """One target; `parent` and `directory` are descriptors, `directory` None if it is missing."""

    def __init__(self, path: Path, parent: int) -> None:
        self.path = path
        self._parent = parent
        self.directory = self._opened()

    def _opened(self) -> int | None:
        try:
            return os.open(self.path.name, _OPEN | os.O_NOFOLLOW, dir_fd=self._parent)
        except FileNotFoundError:
            return None
        except NotADirectoryError as exc:
            raise RefusedError(
                grpc.StatusCode.FAILED_PRECONDITION, f"{self.path} is not a directory"
            ) from exc

    def close(self) -> None:
        if self.directory is not None:
            os.close(self.directory)
        self.directory = None

    def reopen(self) -> None:
        """Look again at what is there."""
        self.close()
        self.directory = self._opened()

    def mounted(self) -> Entry | None:
        """The topmost file system that is mounted there."""
        if self.directory is None:
            return None
        entry = mount_of(self.directory)
        return None if entry.number == mount_of(self._parent).number else entry

    def mount(self, source: int) -> None:
        """Mount the directory `source` there; the target is made if it is missing."""
        if self.directory is None:
            os.mkdir(self.path.name, 0o750, dir_fd=self._parent)
            self.reopen()
        assert self.directory is not None
        bind(source, self.directory)
        self.reopen()

    def clear(self) -> None:
        """Unmount what this plugin mounted there, and remove the directory.

        Raises:
            RefusedError: another file system is mounted there, or the directory has files.
        """
        for _ in range(_MOST):
            entry = self.mounted()
            if entry is None:
                break
            if entry.filesystem != FILESYSTEM:
                what = f"a {entry.filesystem} file system is mounted at {self.path}; unmount it"
                raise RefusedError(grpc.StatusCode.INTERNAL, what)
            assert self.directory is not None
            unbind(self.directory)
            self.reopen()
        if self.directory is not None:
            self.close()
            self._remove()

    def _remove(self) -> None:
        try:
            os.rmdir(self.path.name, dir_fd=self._parent)
        except FileNotFoundError:
            pass
        except OSError as exc:
            what = f"{self.path} cannot be removed: {exc.strerror}"
            if exc.errno == errno.ENOTEMPTY:
                what = f"{self.path} has files, which are no volume's: they are left alone"
            raise RefusedError(grpc.StatusCode.INTERNAL, what) from exc


@contextmanager
def target_at(text: str, root: Path) -> Iterator[Target | None]:
    """The target at this path; None if the directory that it is to be in is missing.

    Raises:
        RefusedError: the path is not below `root`, or leads through a link.
    """
    below = check_target(text, root)
    parent = _walk(root, below.parent)
    if parent is None:
        yield None
        return
    try:
        target = Target(Path(text), parent)
        try:
            yield target
        finally:
            target.close()
    finally:
        os.close(parent)


def _walk(root: Path, below: PurePosixPath) -> int | None:
    """A descriptor of the directory `below` of `root`, reached through no link."""
    descriptor = os.open(root, _OPEN)
    for part in below.parts:
        try:
            inner = os.open(part, _OPEN | os.O_NOFOLLOW, dir_fd=descriptor)
        except FileNotFoundError:
            return None
        except OSError as exc:
            what = (
                f"'{printable(part)}' in {printable(str(root / below))} is a link or no directory"
            )
            raise invalid(what) from exc
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor
