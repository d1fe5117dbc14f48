"""The settings of a command, from flags, variables and the config file.

A flag goes before its `AXONFS_*` variable, the variable before the config file, the file before
the default. The file is YAML with the keys of keys.py; editing.py changes it. If it does not exist,
Axon's config file is read instead. Any thread; nothing here is kept between calls.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from axonfs.errors import UsageError
from axonfs.names import HUBS, printable
from axonfs.settings.axon import RENAMED, axon_config_path, translated
from axonfs.settings.homes import below_home, default_cache, default_mountpoint
from axonfs.settings.items import SEPARATED
from axonfs.settings.keys import KEYS
from axonfs.settings.limits import Amount, CacheLimits
from axonfs.settings.parsers import (
    InvalidItemError,
    as_written,
    parse_path,
)
from axonfs.settings.reading import read_mapping
from axonfs.settings.tokens import check_private, with_tokens
from axonfs.settings.via import ORIGIN, Via, settled

SYSTEM_CONFIG = Path("/etc/axonfs/config.yaml")
# `config set KEY default` removes KEY from the file.
DEFAULT_WORD = "default"

# The content of a config file: each value as YAML reads it, and the file that holds it.
ConfigValues: TypeAlias = dict[str, tuple[Any, str]]


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a command or a mount; times in seconds, sizes in bytes.

    `cache_size`, `keep_free`, `cache_ttl` and `cache_quotas` are those of limits.py. `prefetch` is
    one of PREFETCH. `bandwidth` and `scrub` are in bytes per second; 0 is no limit, and no scrub.
    `metrics` is an address, as listening.py has it. `allow_unverified` holds URLs of registries,
    `require_signature` the rules of signers.py. `via` maps a registry's URL or a hub's name to its
    site caches. `tokens` maps a registry's URL to a token, which is sent to that registry and its
    site caches only.
    The repr leaves tokens out, so no log can show them.
    """

    registries: tuple[str, ...] = ()
    cache: Path = field(default_factory=default_cache)
    cache_size: int | None = None
    keep_free: Amount | None = None
    cache_ttl: float = 0.0
    cache_quotas: Mapping[str, Amount] = field(default_factory=dict)
    offline: bool = False
    deadline: float = 60.0
    streams: int = 16
    bandwidth: int = 0
    retries: int = 5
    prefetch: str = "auto"
    scrub: int = 16 << 20
    allow_other: bool = False
    uid: int | None = None
    gid: int | None = None
    mode: int = 0o444
    passthrough: bool = True
    log_format: str = "text"
    log_level: str = "info"
    trace: Path | None = None
    metrics: str | None = None
    mountpoint: Path = field(default_factory=default_mountpoint)
    ca_bundle: Path | None = None
    sources: tuple[str, ...] = HUBS
    allow_unverified: tuple[str, ...] = ()
    require_signature: tuple[str, ...] = ()
    via: Mapping[str, Via] = field(default_factory=dict)
    fallback: str = ORIGIN
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def cache_limits(self) -> CacheLimits:
        """What the cache may take."""
        return CacheLimits(self.cache_size, self.keep_free, self.cache_ttl, self.cache_quotas)

    def token(self, registry: str) -> str | None:
        """The token of the registry at this URL."""
        return self.tokens.get(registry)


# Where the settings of the site caches come from if they are for this process alone.
_GIVEN = {name: ("flag", KEYS[name].variable) for name in ("via", "fallback")}
assert list(KEYS) == [item.name for item in fields(Settings)]


def convert(name: str, value: object, where: str) -> Any:
    """`value` as the type of the setting `name`.

    Raises:
        UsageError: the value is invalid; the message names the key and `where`, its provenance.
    """
    try:
        return KEYS[name].parse(value)
    except ValueError as exc:
        item = exc.item if isinstance(exc, InvalidItemError) else value
        shown = "" if name == "tokens" and item is value else f"{as_written(item)} "
        raise UsageError(f"{name}: {shown}{exc}", source=where) from exc


def load(flags: Mapping[str, object] | None = None) -> Settings:
    """The settings in effect.

    Args:
        flags: values by key from the command line; None and () mean not given.

    Raises:
        UsageError: a value is invalid; the message names the key and the flag, variable or file.
    """
    return settings_of(resolve(flags or {}))


def settings_of(found: Mapping[str, tuple[Any, str]]) -> Settings:
    """`Settings` made of the result of `resolve`.

    Raises:
        UsageError: no setting names the cache, and this user has no home directory.
    """
    values = {name: value for name, (value, _) in found.items()}
    if values["cache"] is None:
        del values["cache"]  # the default factory raises the UsageError
    return Settings(**values)


def resolve(
    flags: Mapping[str, object],
    document: ConfigValues | None = None,
    *,
    flagged: str = "the command line",
) -> dict[str, tuple[Any, str]]:
    """The value and provenance of every setting, defaults included.

    The cache is None if nothing sets it and this user has no home directory.

    Args:
        document: the content of the config file; by default the file is read.
        flagged: where the flags come from, for messages.
    """
    document = read_document() if document is None else document
    found: dict[str, tuple[Any, str]] = {}
    for name, key in KEYS.items():
        flag = flags.get(name)
        variable = os.environ.get(key.variable or "", "")
        if flag is not None and flag != ():
            found[name] = convert(name, flag, flagged), "flag"
        elif variable:
            found[name] = convert(name, variable, key.variable or ""), key.variable or ""
        elif name in document:
            value, where = document[name]
            found[name] = convert(name, value, where), where
        else:
            found[name] = _default(name), "default"
    return _with_variable_token(_with_named_caches(found))


def read_document() -> ConfigValues:
    """The content of the config file in effect, values unchecked.

    Raises:
        UsageError: the file is unreadable or invalid, or lets other users read tokens.
    """
    document = file_settings()
    if "tokens" in document:
        check_private(Path(document["tokens"][1]))
    return document


def _default(name: str) -> Any:
    (item,) = (item for item in fields(Settings) if item.name == name)
    if item.default_factory is MISSING:
        return item.default
    try:
        return item.default_factory()
    except UsageError:
        return None


def _with_named_caches(found: dict[str, tuple[Any, str]]) -> dict[str, tuple[Any, str]]:
    """Each site cache with its source. A `fallback` of a flag or a variable is for all of them."""
    (via, where), (fallback, origin) = found["via"], found["fallback"]
    forced = origin in _GIVEN["fallback"]
    registries = found["registries"][0]
    try:
        named = settled(via, registries, fallback, forced=forced, strict=where in _GIVEN["via"])
    except InvalidItemError as exc:
        raise UsageError(f"via: {as_written(exc.item)} {exc}", source=where) from exc
    return {**found, "via": (named, where)}


def _with_variable_token(found: dict[str, tuple[Any, str]]) -> dict[str, tuple[Any, str]]:
    # Containers get secrets as variables. AXONFS_TOKEN belongs to the first registry only.
    registries: tuple[str, ...] = found["registries"][0]
    secret = os.environ.get("AXONFS_TOKEN")
    if secret and registries:
        token = convert("tokens", {registries[0]: secret}, "AXONFS_TOKEN")
        found["tokens"] = {**found["tokens"][0], **token}, "AXONFS_TOKEN"
    return found


def config_path() -> Path:
    """The config file in effect, or the file that the first edit will create."""
    own = own_config()
    # A system file that this user may not read is not in effect: see `closed_config`.
    named = os.environ.get("AXONFS_CONFIG")
    if own is None:
        return SYSTEM_CONFIG
    if not named and not os.path.exists(own) and os.access(SYSTEM_CONFIG, os.R_OK):
        return SYSTEM_CONFIG
    return own


def closed_config() -> Path | None:
    """The system's config file, if only its permissions keep this user from using it."""
    own = own_config()
    if os.environ.get("AXONFS_CONFIG") or (own is not None and os.path.exists(own)):
        return None
    try:
        SYSTEM_CONFIG.open("rb").close()
    except PermissionError:
        return SYSTEM_CONFIG
    except OSError:
        pass
    return None


def file_settings() -> ConfigValues:
    """The content of the config file in effect, values unchecked.

    Raises:
        UsageError: see `read_config`.
    """
    path, axon = config_path(), axon_config_path()
    no_axon = not (axon and os.access(axon, os.R_OK))
    if os.environ.get("AXONFS_CONFIG") or os.path.exists(path) or no_axon:
        document = {name: (value, str(path)) for name, value in read_config(path).items()}
        return with_tokens(document, path, read_mapping)
    assert axon is not None
    found = translated(read_mapping(axon))
    return {name: (value, f"{axon} ({key})") for name, (value, key) in found.items()}


def own_config() -> Path | None:
    """The config file that AXONFS_CONFIG names, else the user's own; the file may not exist.

    None for a user without a home directory.
    """
    named = os.environ.get("AXONFS_CONFIG")
    if not named:
        return below_home(".config", "axonfs", "config.yaml", variable="XDG_CONFIG_HOME")
    try:
        return parse_path(named)
    except ValueError as exc:
        raise UsageError(f"{as_written(named)} {exc}", source="AXONFS_CONFIG") from exc


def read_config(path: Path) -> dict[str, Any]:
    """The content of the file, keys checked and values not; {} if the file does not exist.

    Raises:
        UsageError: it is unreadable, not a mapping, or has an unknown key.
    """
    document = read_mapping(path)
    for name, separated in SEPARATED.items():
        try:
            document = separated(document)
        except ValueError as exc:
            shown = f"{as_written(exc.item)} " if isinstance(exc, InvalidItemError) else ""
            raise UsageError(f"{name}: {shown}{exc}", source=str(path)) from exc
    for name in document:
        check_key(str(name), str(path))
    return document


def check_key(name: str, where: str | None = None) -> str:
    """`name`, if it is a setting.

    Raises:
        UsageError: it is not; the hint lists the settings.
    """
    if name in KEYS:
        return name
    hint = f"here it is {RENAMED[name]}" if name in RENAMED else "keys: " + ", ".join(KEYS)
    raise UsageError(f"there is no setting '{printable(name)}'", source=where, hint=hint)
