"""Changes to the config file and to the file of its tokens.

Just above config. An edit holds a lock and replaces each file atomically; comments do not survive
it. Blocking.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from axonfs.errors import UsageError
from axonfs.settings.homes import homeless
from axonfs.settings.settings import (
    SYSTEM_CONFIG,
    config_path,
    convert,
    file_settings,
    own_config,
    read_config,
)
from axonfs.settings.tokens import tokens_path

# An edit takes milliseconds; a process that is stopped in the middle of one keeps the lock.
LOCK_SECONDS = 10.0


@contextlib.contextmanager
def edit_config() -> Iterator[dict[str, Any]]:
    """The file's mapping, to be changed in the block and written back at its end.

    A user whose settings come from the system's file or Axon's gets a file of their own that
    starts with them, so that no edit hides what was in effect. An exception in the block writes
    nothing. Tokens go to their own file, also those that stood in the config file.
    """
    path: Path | None = config_path()
    if path == SYSTEM_CONFIG and os.geteuid() != 0:
        path = own_config()
    if path is None:
        raise homeless("a config file", "AXONFS_CONFIG")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path.parent):
            document = {name: value for name, (value, _) in file_settings().items()}
            yield document
            for name, value in document.items():
                convert(name, value, str(path))
            tokens = document.pop("tokens", None) or {}
            if tokens or tokens_path(path).exists():
                _replace(tokens_path(path), tokens)
            _replace(path, document, _mode_of(path))
    except OSError as exc:
        raise UsageError(f"cannot write the config file: {exc.strerror}", source=str(path)) from exc


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    # The directory carries the lock, since the file itself is replaced by each edit.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _lock(descriptor):
            if time.monotonic() > deadline:
                what = f"another process has had it locked for {LOCK_SECONDS:.0f} s"
                raise UsageError(what, source=str(directory), hint=f"fuser -v {directory} shows it")
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _mode_of(path: Path) -> int:
    """The mode of a config file after an edit: as it was, or closed if it showed tokens."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode) & 0o755
        return mode & 0o700 if "tokens" in read_config(path) else mode
    except FileNotFoundError:
        return 0o600


def _replace(path: Path, document: Mapping[str, Any], mode: int = 0o600) -> None:
    import yaml

    # A link (dotfiles kept elsewhere) stays one: its target is replaced.
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yaml.safe_dump(dict(document), file, sort_keys=False, allow_unicode=True)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
