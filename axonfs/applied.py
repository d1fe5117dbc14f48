"""The settings that a mount applies: the file's as they are now, or as they last were valid.

Each worker reads them anew, and again when a command asks for it. A config file that is invalid or
closed by then must not cost a mount that runs: what it last said is kept in a file in memory, which
the holder hands from worker to worker, and `fault` says what is wrong. Just above config. Blocking.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axonfs.config import KEYS, Document, Settings, config_path, read_document, resolve
from axonfs.errors import UsageError

log = logging.getLogger(__name__)

# What the kernel or the holder was told: it stays as it is until the directory is mounted anew.
FROZEN = frozenset({"cache", "mountpoint", "allow_other", "uid", "gid", "mode", "passthrough"})
_MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Applied:
    """The settings of a mount, and where each comes from: flag, a variable, a file, or default.

    `file` is the config file in effect; `fault` says why it is not used as it is now.
    """

    settings: Settings
    flags: Mapping[str, object]
    origins: Mapping[str, str]
    file: Path
    fault: str | None = None

    def changed(self, other: Applied) -> list[str]:
        """The settings whose values differ."""
        mine, theirs = self.settings, other.settings
        return [name for name in KEYS if getattr(mine, name) != getattr(theirs, name)]

    def shown(self) -> dict[str, dict[str, Any]]:
        """Every setting's value and origin, for people and JSON; no token."""
        return {
            name: {"value": plain(name, getattr(self.settings, name)), "from": origin}
            for name, origin in self.origins.items()
        }


def apply(flags: Mapping[str, object], kept: int) -> Applied:
    """What a worker is to apply.

    Args:
        flags: what the mount's command line said.
        kept: the file in memory with the last valid document; it is written where that changed.

    Raises:
        UsageError: the settings are invalid, and there are none that were valid before.
    """
    fault = None
    try:
        document = read_document()
        found = resolve(flags, document)
        _keep(kept, document)
    except UsageError as exc:
        last = _kept(kept)
        if last is None:
            raise
        fault = str(exc)
        log.warning("the mount keeps the settings that it had: %s", fault)
        found = resolve(flags, last)
    settings = Settings(**{name: value for name, (value, _) in found.items()})
    origins = {name: origin for name, (_, origin) in found.items()}
    return Applied(settings, flags, origins, config_path(), fault)


def _keep(descriptor: int, document: Document) -> None:
    text = json.dumps(document, default=str).encode()
    os.pwrite(descriptor, text, 0)
    os.ftruncate(descriptor, len(text))


def _kept(descriptor: int) -> Document | None:
    text = os.pread(descriptor, _MAX_BYTES, 0)
    if not text:
        return None
    return {name: (value, where) for name, (value, where) in json.loads(text).items()}


def plain(name: str, value: Any) -> Any:
    """A setting's value as JSON has it; of a token only that there is one."""
    if name == "tokens":
        return dict.fromkeys(value, "set")
    if isinstance(value, tuple):
        return list(value)
    if name == "mode":
        return f"{value:04o}"
    return str(value) if isinstance(value, Path) else value
