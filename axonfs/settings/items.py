"""Items of `registries` and `sources` in the config file that are mappings.

What such a mapping says moves to other settings, each of which has one form only. Beside
parsers.py, whose rule for messages applies. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axonfs.names import printable
from axonfs.settings.parsers import (
    InvalidItemError,
    parse_registry_url,
    parse_registry_urls,
    parse_switch,
)

REGISTRY_KEYS = ("url", "token", "allow_unverified", "require_signature", "via", "fallback")
SOURCE_KEYS = ("name", "via", "fallback")

Rows = dict[str, Mapping[str, Any]]


def separated(document: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a config file in which `registries` is a plain list of URLs."""
    items = document.get("registries")
    if not isinstance(items, list) or not any(isinstance(item, dict) for item in items):
        return dict(document)
    rows = _rows(items, "url", "registry", REGISTRY_KEYS)
    urls = [_url(row.get("url", "")) for row in rows]
    by_url: Rows = {}
    for url, row in zip(urls, rows, strict=True):
        by_url[url] = {**by_url.get(url, {}), **row}
    found = {**document, "registries": urls, **_via(document, by_url)}
    tokens = {url: row["token"] for url, row in by_url.items() if row.get("token")}
    before_tokens = document.get("tokens") or {}
    if tokens and isinstance(before_tokens, dict):  # `convert` refuses other types later
        found["tokens"] = {**before_tokens, **tokens}
    allowed = [
        url for url, row in by_url.items() if parse_switch(row.get("allow_unverified", False))
    ]
    if allowed:
        before = parse_registry_urls(document.get("allow_unverified") or [])
        found["allow_unverified"] = [*before, *allowed]
    if rules := [rule for url, row in by_url.items() for rule in _scoped(url, row)]:
        found["require_signature"] = [*_listed(document.get("require_signature")), *rules]
    return found


def separated_sources(document: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a config file in which `sources` is a plain list of names."""
    items = document.get("sources")
    if not isinstance(items, list) or not any(isinstance(item, dict) for item in items):
        return dict(document)
    rows = _rows(items, "name", "source", SOURCE_KEYS)
    by_name: Rows = {str(row.get("name", "")): row for row in rows}
    return {**document, "sources": list(by_name), **_via(document, by_name)}


SEPARATED = {"registries": separated, "sources": separated_sources}


def _rows(items: list[Any], key: str, what: str, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = [item if isinstance(item, dict) else {key: item} for item in items]
    for row in rows:
        if unknown := row.keys() - set(keys):
            name = printable(min(map(str, unknown)))
            raise ValueError(f"'{name}' is not a key of a {what}: {', '.join(keys)}")
    return rows


def _via(document: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
    """The setting `via` with what the rows say."""
    found = {}
    for source, row in rows.items():
        if row.get("via"):
            given = {"caches": row["via"], "fallback": row.get("fallback")}
            found[source] = {name: value for name, value in given.items() if value is not None}
        elif row.get("fallback"):
            raise InvalidItemError(source, "has a fallback, and no site caches (via)")
    before = document.get("via") or {}
    return {"via": {**before, **found}} if found and isinstance(before, dict) else {}


def _url(word: object) -> str:
    try:
        return parse_registry_url(word)
    except ValueError as exc:
        raise InvalidItemError(word, str(exc)) from exc


def _scoped(url: str, row: Mapping[str, Any]) -> list[str]:
    """The rules of `require_signature` that an item of `registries` has for its own versions."""
    scope = url.partition("?")[0]
    return [f"{scope}={signer}" for signer in _listed(row.get("require_signature"))]


def _listed(value: Any) -> list[Any]:
    """The items of a list in the config file, which may be written as one text."""
    return value.split() if isinstance(value, str) else list(value or ())
