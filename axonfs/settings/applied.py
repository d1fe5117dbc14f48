"""The settings that a mount applies: the file's as they are now, or those that last worked.

Each worker reads them anew, and again when a command asks for that. A config file that is invalid
or closed by then, or says what no worker can start with, must not cost a mount that runs: the last
document with which a worker answered is kept in a file in memory, which the holder hands from
worker to worker, and `fault` says what is wrong. Just above config. Blocking.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from axonfs.errors import UsageError
from axonfs.settings.settings import (
    KEYS,
    Document,
    Settings,
    config_path,
    read_document,
    resolve,
    settings_of,
)

log = logging.getLogger(__name__)

# What the kernel or the holder was told: it stays as it is until the directory is mounted anew.
FROZEN = frozenset({"cache", "mountpoint", "allow_other", "uid", "gid", "mode", "passthrough"})
_MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Applied:
    """The settings of a mount, and where each comes from: flag, a variable, a file, or default.

    `file` is the config file in effect and `document` what it says, or said when it last worked;
    `fault` says why it is not used as it is now.
    """

    settings: Settings
    flags: Mapping[str, object]
    provenance: Mapping[str, str]
    file: Path
    document: Document
    fault: str | None = None

    def changed(self, other: Applied) -> list[str]:
        """The settings whose values differ."""
        mine, theirs = self.settings, other.settings
        return [name for name in KEYS if getattr(mine, name) != getattr(theirs, name)]

    def shown(self) -> dict[str, dict[str, Any]]:
        """Every setting's value and provenance, for people and JSON; no token."""
        return {
            name: {"value": plain(name, getattr(self.settings, name)), "from": provenance}
            for name, provenance in self.provenance.items()
        }


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the file in memory has: the document that works, and one that a worker is trying.

    `why` says how the worker ended that tried it, if that had to do with its settings.
    """

    works: Document | None = None
    tried: Document | None = None
    why: str | None = None

    @classmethod
    def read(cls, descriptor: int) -> _Kept:
        try:
            return cls(**json.loads(os.pread(descriptor, _MAX_BYTES, 0)))
        except ValueError:  # nothing yet, or from a worker that was killed while it wrote
            return cls()

    def write(self, descriptor: int) -> None:
        text = json.dumps(asdict(self)).encode()
        os.pwrite(descriptor, text, 0)
        os.ftruncate(descriptor, len(text))


def apply(flags: Mapping[str, object], kept: int, *, first: bool) -> Applied:
    """What a worker that starts is to apply.

    Args:
        flags: what the mount's command line said.
        kept: the file in memory.
        first: whether the mount starts with this worker. Where it does not, and the program that
            began it kept no settings, an invalid file is left out of account.

    Raises:
        UsageError: the settings are invalid, and the mount starts with them.
    """
    known = _Kept.read(kept)
    try:
        found = look(flags)
        if known.works is not None and found.document == known.tried:
            raise UsageError(known.why or "a worker ended with it", source=str(found.file))
    except UsageError as exc:
        if known.works is None and first:
            raise
        log.warning("the mount keeps the settings that it had: %s", exc)
        return replace(_applied(flags, known.works or {}), fault=str(exc))
    if found.document != known.works:
        replace(known, tried=found.document, why=None).write(kept)
    return found


def look(flags: Mapping[str, object]) -> Applied:
    """The settings as they are now.

    Raises:
        UsageError: they are invalid.
    """
    try:  # as it is kept, so that the two can be compared
        document = json.loads(json.dumps(read_document(), default=str))
    except (TypeError, ValueError, RecursionError) as exc:
        what = f"the config file has a value that no setting has: {exc}"
        raise UsageError(what, source=str(config_path())) from exc
    return _applied(flags, document)


def _applied(flags: Mapping[str, object], document: Document) -> Applied:
    found = resolve(flags, document)
    settings = settings_of(found)
    provenance = {name: where for name, (_, where) in found.items()}
    return Applied(settings, flags, provenance, config_path(), document)


def works(applied: Applied, kept: int) -> None:
    """Note that the mount answers with these settings."""
    if applied.fault is None:
        _Kept(works=applied.document).write(kept)


def fails(why: str, kept: int) -> None:
    """Note that no worker can start with the settings that are being tried."""
    known = _Kept.read(kept)
    if known.tried is not None:
        replace(known, why=why).write(kept)


def try_again(kept: int) -> None:
    """Have the next worker try the file, also if one has failed with it."""
    replace(_Kept.read(kept), tried=None, why=None).write(kept)


def plain(name: str, value: Any) -> Any:
    """A setting's value as JSON has it; of a token only that there is one."""
    if name == "tokens":
        return dict.fromkeys(value, "set")
    if isinstance(value, tuple):
        return list(value)
    if name == "mode":
        return f"{value:04o}"
    return str(value) if isinstance(value, Path) else value
