"""The settings that a mount applies: those in the config file now, or the last ones that worked.

Each worker reads the config file when it starts, and again when a command asks for a reload. A
running mount survives a config file that is invalid or unreadable, or with which no worker starts:
a file in memory keeps the last document with which a worker answered. The holder passes that file
from worker to worker. `Applied.fault` says why the config file is not in use. Such a mount never
admits more than its owner wants: it has the present rules of `require_signature` if the file has
valid ones, and if no rules are known, it admits nothing.

The same file keeps what `mount -o remount` has changed. These options are entries of the document
whose provenance is REMOUNT, and go before the mount's own flags. Above settings.py. Blocking.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from axonfs.errors import UsageError
from axonfs.names import printable
from axonfs.settings.keys import KEYS
from axonfs.settings.limits import Amount
from axonfs.settings.settings import (
    ConfigValues,
    Settings,
    config_path,
    convert,
    read_document,
    resolve,
    settings_of,
)
from axonfs.units import age

log = logging.getLogger(__name__)

# The kernel or the holder got these when the mount began. They change with the next mount only.
FROZEN = frozenset({"cache", "mountpoint", "allow_other", "uid", "gid", "mode", "passthrough"})
# A mount applies these at once; for the others its worker is replaced.
LIVE = frozenset(
    {"bandwidth", "cache_quotas", "cache_size", "cache_ttl", "keep_free", "metrics", "trace"}
)
# The provenance of a value that was given when the mount was remounted.
REMOUNT = "mount -o remount"
_MAX_BYTES = 8 << 20
_RULES = "require_signature"
# A rule that no version fulfils: there is no such file.
_NOBODY = "/nonexistent/the-config-file-is-invalid"


@dataclass(frozen=True, slots=True)
class Applied:
    """The settings of a mount.

    Args:
        provenance: where each value comes from: "flag", a variable, a file, or "default".
        file: the config file in effect.
        document: the content of `file`, or of its last version that worked.
        fault: why the present content of `file` is not in use.
        options: what a remount has changed, in the form of flags.
    """

    settings: Settings
    flags: Mapping[str, object]
    provenance: Mapping[str, str]
    file: Path
    document: ConfigValues
    fault: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)

    def changed(self, other: Applied) -> list[str]:
        """The settings whose values differ."""
        mine, theirs = self.settings, other.settings
        return [name for name in KEYS if getattr(mine, name) != getattr(theirs, name)]

    def shown(self) -> dict[str, dict[str, Any]]:
        """The value and provenance of every setting, for people and JSON, without any token."""
        return {
            name: {"value": plain(name, getattr(self.settings, name)), "from": provenance}
            for name, provenance in self.provenance.items()
        }


@dataclass(frozen=True, slots=True)
class _Kept:
    """The content of the file in memory: the document that works, and the one on trial.

    `why` says how the worker that tried it ended, if its settings were the reason.
    """

    works: ConfigValues | None = None
    tried: ConfigValues | None = None
    why: str | None = None
    options: dict[str, object] = field(default_factory=dict)

    @classmethod
    def read(cls, descriptor: int) -> _Kept:
        try:
            found = json.loads(os.pread(descriptor, _MAX_BYTES, 0))
            return cls(
                **{item.name: found[item.name] for item in fields(cls) if item.name in found}
            )
        except ValueError:  # empty, or torn because a worker was killed while it wrote
            return cls()

    def write(self, descriptor: int) -> None:
        found = asdict(self)
        if not self.options:  # which an earlier version does not know
            del found["options"]
        text = json.dumps(found).encode()
        os.pwrite(descriptor, text, 0)
        os.ftruncate(descriptor, len(text))


def apply(flags: Mapping[str, object], kept: int, *, first: bool) -> Applied:
    """The settings for a worker that starts.

    Args:
        flags: values from the mount's command line.
        kept: the descriptor of the file in memory.
        first: whether this is the mount's first worker. A later worker starts without the config
            file, and admits no version, if the file is invalid and no earlier settings were kept.

    Raises:
        UsageError: the settings are invalid, and this is the first worker.
    """
    before, current = _Kept.read(kept), None
    try:
        current = look(flags, before.works, before.options)
        if before.works is not None and current.document == before.tried:
            raise UsageError(before.why or "a worker ended with it", source=str(current.file))
    except UsageError as exc:
        if before.works is None and first:
            raise
        log.warning("the mount keeps the settings that it had: %s", exc)
        document = _closed(before.works, current.document if current else {})
        return replace(_applied(flags, document, before.options), fault=str(exc))
    if current.document != before.works:
        replace(before, tried=current.document, why=None).write(kept)
    return current


def _closed(works: ConfigValues | None, current: ConfigValues) -> ConfigValues:
    """The document in place of `current`, which is not in use, or is {} if it is invalid."""
    if works is None:
        return {_RULES: ([_NOBODY], str(config_path()))}
    return works | {name: value for name, value in current.items() if name == _RULES}


def look(
    flags: Mapping[str, object],
    known: ConfigValues | None = None,
    options: Mapping[str, object] | None = None,
) -> Applied:
    """The settings in effect now.

    Args:
        known: the document that the mount uses.
        options: what a remount has changed.

    Raises:
        UsageError: they are invalid, or a file with rules for signatures is gone.
    """
    where = (known or {}).get(_RULES, (None, ""))[1]
    if where not in ("", REMOUNT) and not os.path.exists(where):
        what = f"the config file is gone, and {_RULES} with it"
        raise UsageError(what, source=where, hint="write it again, or unmount and mount again")
    given = {name: (value, REMOUNT) for name, value in (options or {}).items()}
    try:  # through JSON, like the kept document, so that the two compare equal
        document = json.loads(json.dumps(read_document() | given, default=str))
    except (TypeError, ValueError, RecursionError) as exc:
        what = f"the config file has a value that is invalid for every setting: {exc}"
        raise UsageError(what, source=str(config_path())) from exc
    return _applied(flags, document, options or {})


def _applied(
    flags: Mapping[str, object], document: ConfigValues, options: Mapping[str, object]
) -> Applied:
    given = {name: value for name, (value, where) in document.items() if where == REMOUNT}
    found = resolve({**flags, **given}, document)
    settings = settings_of(found)
    provenance = {name: REMOUNT if name in given else where for name, (_, where) in found.items()}
    return Applied(settings, flags, provenance, config_path(), document, options=options)


def remounted(applied: Applied, given: object) -> dict[str, object]:
    """What a remount has changed, with the options `given` for one more remount.

    Raises:
        UsageError: one of them is no setting, or cannot change while the mount lasts.
    """
    given = given if isinstance(given, dict) else {}
    for name, value in given.items():
        if name not in KEYS or name == "tokens":
            raise UsageError(f"'{printable(str(name))}' is no option of a mount")
        if name not in FROZEN:
            continue
        if convert(name, value, "mount options") != getattr(applied.settings, name):
            hint = "unmount it, and mount it again"
            raise UsageError(f"{name} cannot change while the mount lasts", hint=hint)
    changed = {name: value for name, value in given.items() if name not in FROZEN}
    return {**applied.options, **changed}


def keep_options(options: Mapping[str, object], kept: int) -> None:
    """Note what a remount has changed, for later workers."""
    replace(_Kept.read(kept), options=dict(options)).write(kept)


def works(applied: Applied, kept: int) -> None:
    """Note that the mount answers with these settings."""
    if applied.fault is None:
        options = _Kept.read(kept).options
        _Kept(works=applied.document, options=options).write(kept)


def fails(why: str, kept: int) -> None:
    """Note that a worker cannot start with the settings on trial."""
    before = _Kept.read(kept)
    if before.tried is not None:
        replace(before, why=why).write(kept)


def try_again(kept: int) -> None:
    """Have the next worker try the config file again, even if a worker failed with it."""
    replace(_Kept.read(kept), tried=None, why=None).write(kept)


def plain(name: str, value: Any) -> Any:
    """The value of a setting in types that JSON has; "set" in place of each token."""
    if name == "tokens":
        return dict.fromkeys(value, "set")
    if name == "via":
        return {source: via.plain() for source, via in value.items()}
    if name == "cache_quotas":
        return {scope: str(amount) for scope, amount in value.items()}
    if name == "cache_ttl":
        return age(value) if value else "off"
    if isinstance(value, Amount):
        return str(value) if value != Amount() else "off"
    if isinstance(value, tuple):
        return list(value)
    if name == "mode":
        return f"{value:04o}"
    return str(value) if isinstance(value, Path) else value
