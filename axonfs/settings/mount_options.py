"""Mount options, as in `mount -o` and in the fourth field of /etc/fstab.

Every setting of a mount is an option of the same name, with underscores or dashes. Options of
mount(8), of systemd and of the kernel that say nothing about this file system are skipped. Above
settings.py. Pure, except for paths, which depend on the working directory.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axonfs.errors import UsageError
from axonfs.names import printable
from axonfs.settings.applied import plain
from axonfs.settings.keys import KEYS
from axonfs.settings.parsers import parse_path, parse_switch
from axonfs.settings.settings import convert

# Words that stand for a switch that is off; the flags of `axonfs mount` have the same names.
NEGATIONS = {"online": "offline", "only_me": "allow_other", "no_passthrough": "passthrough"}
# Settings that hold several values: an option that is given again adds to them.
LISTS = (
    "registries",
    "via",
    "sources",
    "allow_unverified",
    "require_signature",
    "cache_quotas",
)
# Values that depend on the working directory; others stay as they are written.
_RESOLVED = (
    "registries",
    "cache",
    "ca_bundle",
    "trace",
    "metrics",
    "allow_unverified",
    "require_signature",
)
_ALIASES = {"registry": "registries"}
_NOT_OPTIONS = {"mountpoint"}
_SECRETS = ("token", "tokens", "password", "passwd", "secret")
# For mount(8), systemd, or a mount that is always read-only, nosuid and nodev.
_SKIPPED = re.compile(
    "defaults|(no)?auto|(no)?users?|group|owner|_netdev|nofail|r[ow]|(no)?suid|(no)?dev|a?sync"
    "|dirsync|(no)?(dir|rel|strict)?atime|(no)?lazytime|(no)?mand|silent|loud|(no)?iversion|[bf]g"
    "|nonempty|default_permissions|comment|u?helper|subtype|user_id|group_id|rootmode|max_read"
    "|blksize|[xX][-_.].*"
)
# A part ends at a comma that is neither escaped nor between quotes, as for libfuse and libmount.
_PART = re.compile(r'(?:\\.|"[^"]*"|[^,"\\]|["\\])+')


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What a list of mount options says.

    `flags` are settings, in the form of the command line's flags. `fsname` is the source that the
    mount table shows. `noexec` is None if neither noexec nor exec is given. `config` is the config
    file. `unknown` are options that nothing here knows.
    """

    flags: Mapping[str, Any] = field(default_factory=dict)
    fsname: str | None = None
    noexec: bool | None = None
    config: Path | None = None
    remount: bool = False
    unknown: tuple[str, ...] = ()


def parse_options(texts: Sequence[str], where: str = "mount options") -> MountOptions:
    """What the comma-separated lists `texts` say; of two values of one option the last one counts.

    Args:
        where: where they come from, for messages.

    Raises:
        UsageError: a value is invalid, or a secret is among them.
    """
    flags: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    unknown: list[str] = []
    for written, value in _parts(texts):
        name = _ALIASES.get(written, written)
        if name in _SECRETS:
            hint = "tokens belong in tokens.yaml beside the config file, with mode 0600"
            raise UsageError(f"the option {name}: all users can read it", source=where, hint=hint)
        if name in NEGATIONS and value is None:
            flags[NEGATIONS[name]] = False
        elif name in KEYS and name not in _NOT_OPTIONS:
            flags[name] = _with(flags.get(name), name, value, where)
        elif not _apart(rest, name, value, where) and not _SKIPPED.fullmatch(name):
            unknown.append(written)
    return MountOptions(flags, **rest, unknown=tuple(unknown))


def refuse_unknown(options: MountOptions, where: str = "mount options") -> None:
    """
    Raises:
        UsageError: there are options that nothing knows; the hint names the one that is meant.
    """
    if not options.unknown:
        return
    name = options.unknown[0]
    known = ["registry", *(key for key in KEYS if key not in (*_SECRETS, *_NOT_OPTIONS)), "config"]
    near = difflib.get_close_matches(name, [*known, *NEGATIONS], 1)
    hint = f"did you mean {near[0]}?" if near else f"options: {', '.join(known)}"
    raise UsageError(f"there is no option '{printable(name)}'", source=where, hint=hint)


def as_option(name: str, value: object) -> str:
    """One flag of a setting as a mount option."""
    words = value if isinstance(value, list | tuple) else [value]
    text = " ".join(str(word).lower() if isinstance(word, bool) else str(word) for word in words)
    return f"{name}={_escaped(text)}"


def _escaped(text: str) -> str:
    """`text` as a part of a list of options, in which a comma ends a part."""
    return re.sub(r'([,"\\])', r"\\\1", text)


def _parts(texts: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Name and value of each option; the value is None for a mere word."""
    for part in (part for text in texts for part in _PART.findall(text)):
        name, sign, value = part.partition("=")
        if name.strip():
            yield name.strip().replace("-", "_"), _unquoted(value) if sign else None


def _unquoted(text: str) -> str:
    return re.sub(r'\\(.)|"', lambda match: match[1] or "", text)


def _with(before: Any, name: str, value: str | None, where: str) -> Any:
    """A setting's flag after one more option; the value is checked."""
    if value is None:
        if KEYS[name].parse is not parse_switch:
            what = f"the option {name} needs a value"
            raise UsageError(what, source=where, hint=f"write {name}=VALUE")
        return True
    found = convert(name, value.split() if name in LISTS else value, where)
    if KEYS[name].parse is parse_switch:
        return found
    if name in _RESOLVED:
        value = plain(name, found)
    if name not in LISTS:
        return value if value is not None else "off"
    return [*(before or []), *(value if isinstance(value, list) else value.split())]


def _apart(rest: dict[str, Any], name: str, value: str | None, where: str) -> bool:
    """Note an option that is no setting in `rest`; whether it was one."""
    if name == "remount":
        rest["remount"] = True
    elif name in ("exec", "noexec"):
        rest["noexec"] = name == "noexec"
    elif name == "fsname" and value:
        rest["fsname"] = value
    elif name == "config" and value:
        try:
            rest["config"] = parse_path(value)
        except ValueError as exc:
            raise UsageError(f"config: '{printable(value)}' {exc}", source=where) from exc
    else:
        return False
    return True
