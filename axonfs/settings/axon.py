"""Axon's config file, translated to this program's settings, for users who come from Axon.

Below settings.py, which reads it if AxonFS has no config file. Never written. Keys without a
counterpart here are ignored. Axon's file holds every key, so Axon's values for "not set" are
ignored as well. Any thread; nothing is kept between calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from axonfs.settings.homes import below_home

# The only origin that gets the Hub's token.
HUB = "https://huggingface.co"

# Axon's key for each of our settings that corresponds to exactly one key.
SIMPLE: Mapping[str, str] = {
    "deadline": "registry.timeout",
    "streams": "download.parallel",
    "retries": "download.max_retries",
}
RENAMED: Mapping[str, str] = {
    "registry.url": "registries",
    "registry.mirrors": "registries",
    "registry.huggingface_token": "tokens",
    **{theirs: ours for ours, theirs in SIMPLE.items()},
}


def axon_config_path() -> Path | None:
    """The path of Axon's config file; None for a user without a home directory."""
    return below_home(".axon", "config.yaml")


def translated(document: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Our settings from Axon's `document`, each with Axon's key; values are not checked here."""
    found: dict[str, tuple[Any, str]] = {}
    urls = [_value(document, "registry.url"), *_list(_value(document, "registry.mirrors"))]
    if given := [url for url in urls if url]:
        found["registries"] = given, "registry.url"
    for ours, theirs in SIMPLE.items():
        value = _value(document, theirs)
        if value is not None and (value != 0 or ours == "retries"):
            found[ours] = value, theirs
    if token := _value(document, "registry.huggingface_token"):
        found["tokens"] = {HUB: token}, "registry.huggingface_token"
    return found


def _value(document: Mapping[str, Any], key: str) -> Any:
    group, _, name = key.partition(".")
    section = document.get(group)
    return section.get(name) if isinstance(section, dict) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
