"""Edits of the config file and of the tokens file.

Above settings.py. An edit holds a lock and replaces each file atomically. It loses the comments in
the files. Blocking.
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
from axonfs.names import word
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

# An edit takes milliseconds, but a process that is stopped during an edit keeps the lock.
LOCK_SECONDS = 10.0


@contextlib.contextmanager
def edit_config() -> Iterator[dict[str, Any]]:
    """Yield the file's mapping; the block changes it, and the end of the block writes it back.

    If the settings come from the system's file or from Axon's, the user's own file starts as a
    copy of them, so an edit never hides settings that were in effect. After an exception in the
    block nothing is written. Tokens move from the config file to the tokens file.
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
    # Lock the directory, because each edit replaces the file.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _lock(descriptor):
            if time.monotonic() > deadline:
                what = f"another process has held the lock for {LOCK_SECONDS:.0f} s"
                hint = f"fuser -v {word(directory)} names the process"
                raise UsageError(what, source=str(directory), hint=hint)
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
    """The mode of a config file after an edit: as before, or private if the file held tokens."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode) & 0o755
        return mode & 0o700 if "tokens" in read_config(path) else mode
    except FileNotFoundError:
        return 0o600


def _replace(path: Path, document: Mapping[str, Any], mode: int = 0o600) -> None:
    import yaml

    # Replace the target of a symlink, not the link: dotfiles are often kept elsewhere.
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
