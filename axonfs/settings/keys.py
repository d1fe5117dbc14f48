"""The keys of a config file, which are the settings' names: each one's variable, parser and help.

Below settings.py, which reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from axonfs.settings.limits import parse_keep_free, parse_quotas, parse_ttl
from axonfs.settings.listening import parse_listening
from axonfs.settings.parsers import (
    parse_log_format,
    parse_log_level,
    parse_mode,
    parse_number,
    parse_optional_path,
    parse_path,
    parse_prefetch,
    parse_registry_urls,
    parse_seconds,
    parse_sources,
    parse_switch,
    parse_tokens,
    whole,
)
from axonfs.settings.signers import parse_signature_rules
from axonfs.settings.via import parse_fallback, parse_via
from axonfs.units import parse_bandwidth, parse_rate, parse_size


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: its variable, its parser, and one sentence for people."""

    variable: str | None
    parse: Callable[[object], Any]
    help: str


KEYS: Mapping[str, Key] = {
    "registries": Key(
        "AXONFS_REGISTRY", parse_registry_urls, "Registry URLs; the first that has a model wins."
    ),
    "cache": Key("AXONFS_CACHE_DIR", parse_path, "Directory of the local cache."),
    "cache_size": Key(
        "AXONFS_CACHE_SIZE", parse_size, "Limit of the cache, like 200G; auto leaves 10 % free."
    ),
    "keep_free": Key(
        "AXONFS_KEEP_FREE",
        parse_keep_free,
        "What the cache leaves free of its disk, like 50G or 10%; or off.",
    ),
    "cache_ttl": Key(
        "AXONFS_CACHE_TTL",
        parse_ttl,
        "How long the cache keeps what nothing uses, like 30d; or off.",
    ),
    "cache_quotas": Key(
        "AXONFS_CACHE_QUOTAS",
        parse_quotas,
        "What the models of a namespace may take of the cache (cache.md), as NAMESPACE=SIZE.",
    ),
    "offline": Key("AXONFS_OFFLINE", parse_switch, "Whether to send no network requests."),
    "deadline": Key(
        "AXONFS_DEADLINE", parse_seconds, "Seconds without progress before a read fails."
    ),
    "streams": Key(
        "AXONFS_STREAMS", whole(1, 256), "Maximum number of parallel connections to one source."
    ),
    "bandwidth": Key(
        "AXONFS_BANDWIDTH", parse_bandwidth, "Most bytes per second to receive, like 500M; or off."
    ),
    "retries": Key(
        "AXONFS_RETRIES", whole(0, 100), "How often to retry a request for a manifest or an index."
    ),
    "prefetch": Key(
        "AXONFS_PREFETCH",
        parse_prefetch,
        "What to fetch when a load starts: auto (the files it will read), all (the version), off.",
    ),
    "scrub": Key(
        "AXONFS_SCRUB",
        parse_rate,
        "Bytes per second that a mount reads to check its cache, like 32M; or off.",
    ),
    "allow_other": Key(
        "AXONFS_ALLOW_OTHER", parse_switch, "Whether other users may read the mount."
    ),
    "uid": Key("AXONFS_UID", parse_number, "User id of the files; default: the mounting user's."),
    "gid": Key("AXONFS_GID", parse_number, "Group id of the files; default: the mounting user's."),
    "mode": Key(
        "AXONFS_MODE", parse_mode, "Octal mode of the files; directories get x for each r."
    ),
    "passthrough": Key(
        "AXONFS_PASSTHROUGH", parse_switch, "Whether the kernel may read complete files itself."
    ),
    "log_format": Key(
        "AXONFS_LOG_FORMAT", parse_log_format, "Format of a mount's log: text or json."
    ),
    "log_level": Key(
        "AXONFS_LOG_LEVEL",
        parse_log_level,
        "Lowest level of messages in a mount's log: debug, info, warning or error.",
    ),
    "trace": Key(
        "AXONFS_TRACE",
        parse_optional_path,
        "File in which a mount records what it does, for `axonfs trace show`.",
    ),
    "metrics": Key(
        "AXONFS_METRICS",
        parse_listening,
        "Where a mount serves its metrics: [ADDRESS:]PORT, unix:PATH, or off.",
    ),
    "mountpoint": Key("AXONFS_MOUNTPOINT", parse_path, "Where `axonfs mount` mounts by default."),
    "ca_bundle": Key(
        "AXONFS_CA_BUNDLE", parse_optional_path, "PEM file of the certificate authorities to trust."
    ),
    "sources": Key(
        "AXONFS_SOURCES",
        parse_sources,
        "Hubs to offer, each as a namespace of its own name: hf, modelscope; or none.",
    ),
    "allow_unverified": Key(
        "AXONFS_ALLOW_UNVERIFIED",
        parse_registry_urls,
        "URLs of registries whose files may be read even without a sha256.",
    ),
    "require_signature": Key(
        "AXONFS_REQUIRE_SIGNATURE",
        parse_signature_rules,
        "Who has to have signed a version before it is read, as [SCOPE=]SIGNER (signatures.md).",
    ),
    "via": Key(
        "AXONFS_VIA",
        parse_via,
        "Site caches by registry URL or hub (registries.md); in the variable [SOURCE=]CACHE_URL.",
    ),
    "fallback": Key(
        "AXONFS_FALLBACK",
        parse_fallback,
        "Whether a source is asked when none of its site caches answers: origin or never.",
    ),
    "tokens": Key(
        None,
        parse_tokens,
        "Token per registry URL; `axonfs registry add URL --with-token` sets one.",
    ),
}
