"""What completion knows of this machine: specs and files in the cache's index, mounts, registries.

A name comes from a registry, so it may be anything: only names of letters, digits and a few signs
are offered, which mean nothing to a shell. Reads a table for `SECONDS` of processor time at most.
Blocking.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What a shell and a terminal take as it is. A leading - would be an option.
SAFE = re.compile(r"[A-Za-z0-9_./][\w.@/+=:,-]*")
SECONDS = 0.06
_LARGEST, _SMALL = 16 << 20, 1 << 20
# An entry as axonfs/formats/listing.py writes it.
_ENTRY = re.compile(
    rb'"namespace":\s*"([\w./+-]*)",\s*"name":\s*"([\w./+-]*)",\s*"version":\s*"([\w.+-]*)"'
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
# A file's path in a manifest, which is YAML or JSON; to parse one may take 100 ms.
_PATH = re.compile(rb"""(?:^|[\s{,-])["']?path["']?:\s*["']?([^"'\n,}]+)""")
# Source: axonfs/store/records.py and metadata.py, of which this reads the heads of two tables.
_SEAL, _LENGTH = 8, 4


def cache_of(words: list[str]) -> str:
    """The cache directory that a command line means, by --cache, the variable, a file, or the
    default."""
    if "--cache" in words[:-1]:
        return os.path.expanduser(words[words.index("--cache") + 1])
    if named := os.environ.get("AXONFS_CACHE_DIR") or _configured("cache"):
        return os.path.expanduser(named)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    default = "/var/cache/axonfs" if os.geteuid() == 0 else f"{base}/axonfs"
    return default if os.path.exists(f"{default}/index.lmdb") else _mounted() or default


def _mounted() -> str | None:
    """The cache of a mount of this user, by the command line of its worker."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{name}").st_uid != os.geteuid():
                continue
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read(4096).split(b"\0")
        except OSError:
            continue
        if words[2:6] == [b"-m", b"axonfs", b"worker", b"--cache"]:
            return os.fsdecode(words[6])
    return None


def specs(cache: str, word: str) -> list[str]:
    """Models whose names begin with `word`; with `@` in it, or if it is a whole name, versions."""
    model, at, _ = word.partition("@")
    found = dict.fromkeys(_specs(cache, model))
    models = sorted({name for name, _ in found})
    if not at and models != [model]:
        return models
    versions = [f"{name}@{version}" for name, version in found if name == model and version]
    hub = any(_COMMIT.fullmatch(spec.partition("@")[2]) for spec in versions)
    latest = [] if hub else [f"{model}@latest"] * (model in models)
    return [*([] if at else [model]), *latest, *sorted(versions)]


def files(cache: str, wanted: list[str]) -> list[str]:
    """The files of the versions that `wanted` names; of all versions of a model without one."""
    found: list[str] = []
    for names, raw in _manifests(cache):
        spec = f"{names[0]}/{names[1]}"
        if spec in wanted or f"{spec}@{names[2]}" in wanted:
            found += [path.decode("utf-8", "replace").strip() for path in _PATH.findall(raw)]
    return sorted({path for path in found if SAFE.fullmatch(path)})


def mountpoints() -> list[str]:
    """Where AxonFS is mounted, by the mount table."""
    found = []
    # No other sign ends a line: any may be in a path.
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace", newline="\n") as lines:
        for line in lines:
            left, _, right = line.partition(" - ")
            if right.startswith("fuse.axonfs "):
                found.append(left.split(" ")[4])
    return [place for place in found if SAFE.fullmatch(place)]


def registries() -> list[str]:
    """The URLs of the config file."""
    import yaml

    try:
        with open(_config(), encoding="utf-8") as file:
            items = yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["registries"]
        urls = [item["url"] if isinstance(item, dict) else item for item in items]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, RecursionError):
        return []
    return [url for url in urls if isinstance(url, str) and SAFE.fullmatch(url)]


def _specs(cache: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Model and version of each manifest, and of each entry in a registry's index, whose model
    begins with `prefix`."""
    every = [tuple(names[:3]) for names, _ in _manifests(cache)]
    for body in _indexes(cache):
        every += _entries(body)
    for namespace, name, version in every:
        model = f"{namespace}/{name}"
        if model.startswith(prefix) and SAFE.fullmatch(model) and "@" not in model:
            safe = isinstance(version, str) and SAFE.fullmatch(version)
            yield model, version if safe else ""


def _entries(body: bytes) -> list[tuple[Any, ...]]:
    """The names in an index. To parse one of 20,000 models would take 80 ms."""
    found = [tuple(map(bytes.decode, names)) for names in _ENTRY.findall(body)]
    if found or len(body) > _SMALL:
        return found
    try:  # another program wrote it, in another order
        items = [item for item in json.loads(body)["models"] if isinstance(item, dict)]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return [(item.get("namespace"), item.get("name"), item.get("version")) for item in items]


def _manifests(cache: str) -> Iterator[tuple[list[Any], bytes]]:
    """The names and the text of each manifest in the index."""
    for _, record in _records(cache, b"manifests"):
        start = _SEAL + _LENGTH
        end = start + int.from_bytes(record[_SEAL:start], "little")
        try:
            names = json.loads(bytes(record[start:end]))
            if isinstance(names, list) and len(names) > 2:
                yield names, bytes(record[end:])
        except (ValueError, RecursionError):
            continue


def _indexes(cache: str) -> Iterator[bytes]:
    """The last index of each registry, unless it is so large that it takes too long."""
    wanted = [
        bytes(key)
        for key, record in _records(cache, b"documents")
        if b"/api/v1/index.json" in bytes(record[_SEAL + 8 :])
    ]
    for _, record in _records(cache, b"bodies", wanted):
        if len(record) <= _LARGEST:
            yield bytes(record[_SEAL:])


def _records(
    cache: str, table: bytes, keys: list[bytes] | None = None
) -> Iterator[tuple[Any, Any]]:
    import lmdb

    until = time.thread_time() + SECONDS
    path = os.path.join(cache, "index.lmdb")
    try:
        if not os.path.getsize(path) or not os.path.exists(f"{path}-lock"):
            return
        options: Any = {"subdir": False, "readonly": True, "max_dbs": 16, "create": False}
        with lmdb.open(path, readahead=False, **options) as environment:
            database = environment.open_db(table, create=False)
            with environment.begin(db=database, buffers=True) as transaction:
                pairs: Any = transaction.cursor()
                if keys is not None:
                    pairs = ((key, transaction.get(key)) for key in keys)
                for key, record in pairs:
                    if record is not None:
                        yield key, record
                    if time.thread_time() > until:
                        return
    except (OSError, lmdb.Error):
        return


def _config() -> str:
    named = os.environ.get("AXONFS_CONFIG")
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    own = named or f"{base}/axonfs/config.yaml"
    return own if named or os.path.exists(own) else "/etc/axonfs/config.yaml"


def _configured(name: str) -> str | None:
    """A plain value in the config file; reading it as YAML would take 20 ms."""
    try:
        with open(_config(), encoding="utf-8", errors="replace") as file:
            match = re.search(rf"^{name}:\s*(\S.*?)\s*(?:#.*)?$", file.read(1 << 20), re.MULTILINE)
    except OSError:
        return None
    return match[1].strip("'\"") if match else None
