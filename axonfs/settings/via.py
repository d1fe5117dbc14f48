"""Site caches: the settings `via` and `fallback`.

A site cache is a reverse proxy with a cache that stands in for a registry or a hub. `via` maps a
registry's URL or a hub's name to its caches. A flag and a variable give them as texts,
`[SOURCE=]CACHE_URL`; without SOURCE that is the first registry. Beside parsers.py, whose rule for
messages applies. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from axonfs.names import HUBS, printable
from axonfs.settings.parsers import (
    InvalidItemError,
    NotWebError,
    one_of,
    parse_registry_url,
    parse_web_url,
)
from axonfs.settings.store_urls import oci_options

ORIGIN, NEVER = "origin", "never"
FALLBACKS = (ORIGIN, NEVER)
SRV = "srv+"
# Keys of a source's item in `via`.
_KEYS = ("caches", "fallback")
_GIVEN = re.compile(r"(?:(.+)=)?((?:srv\+)?https?://\S*)")

parse_fallback = one_of(FALLBACKS)


@dataclass(frozen=True, slots=True)
class Via:
    """The site caches of one source.

    Args:
        fallback: whether the source is asked when no cache answers: `origin` or `never`; None for
            what the setting `fallback` says.
    """

    caches: tuple[str, ...]
    fallback: str | None = None

    def plain(self) -> dict[str, Any]:
        """As the config file has it."""
        found: dict[str, Any] = {"caches": list(self.caches)}
        return found | ({"fallback": self.fallback} if self.fallback else {})


def parse_cache_url(value: object) -> str:
    """The URL of a site cache without its trailing slash; with SRV its name has SRV records."""
    text = str(value).strip()
    bare = text.removeprefix(SRV)
    if "@" in bare.partition("://")[2].partition("/")[0]:
        raise ValueError("has credentials in it; a site cache gets those of the source")
    try:
        found = parse_web_url(bare)
    except NotWebError:
        raise ValueError("is not an http:// or https:// URL of a site cache") from None
    if bare != text and not re.match(r"https?://_[^/:]+\._tcp\.[^/:]+(/|$)", bare):
        raise ValueError("has no name of SRV records; write srv+http://_NAME._tcp.DOMAIN")
    return found if bare == text else f"{SRV}{found}"


def parse_source(value: object) -> str:
    """A hub's name, or a registry's URL; registries without a server have no caches."""
    text = str(value).strip()
    if text in HUBS:
        return text
    url = parse_registry_url(text)
    if url.startswith("file:"):
        raise ValueError("is a directory, which has no site caches")
    if url.startswith("oci:") and "mirror" in dict(oci_options(urlsplit(url).query)):
        raise ValueError("has mirrors, so it can have no site caches as well")
    return url


def parse_via(value: object) -> dict[str, Via]:
    """The caches by source; "" stands for the first registry."""
    if isinstance(value, Mapping):
        return {_item(parse_source, source): via_of(given) for source, given in value.items()}
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list | tuple):
        raise ValueError("is not a mapping of registry URLs and hubs to site caches")
    found: dict[str, list[str]] = {}
    for word in words:
        source, cache = _item(_given, word)
        found.setdefault(source, []).append(cache)
    return {source: via_of(caches) for source, caches in found.items()}


def via_of(given: object) -> Via:
    """The caches in one item of `via`: a URL, a list of URLs, or a mapping with the keys _KEYS."""
    row = given if isinstance(given, Mapping) else {"caches": given}
    if unknown := row.keys() - set(_KEYS):
        name = printable(min(map(str, unknown)))
        raise ValueError(f"'{name}' is not a key of site caches: {', '.join(_KEYS)}")
    caches = row.get("caches")
    words = caches.split() if isinstance(caches, str) else caches
    if not words or not isinstance(words, list | tuple):
        raise ValueError("is not a list of the URLs of site caches")
    fallback = row.get("fallback")
    return Via(
        tuple(dict.fromkeys(_item(parse_cache_url, word) for word in words)),
        None if fallback is None else _item(parse_fallback, fallback),
    )


def _given(word: object) -> tuple[str, str]:
    """The source and the cache in `[SOURCE=]CACHE_URL`."""
    match = _GIVEN.fullmatch(str(word).strip())
    if match is None:
        raise ValueError("is not [SOURCE=]CACHE_URL, like http://cache:8080 or hf=http://cache")
    source, cache = match.groups()
    return parse_source(source) if source else "", parse_cache_url(cache)


def _item(parse: Any, word: object) -> Any:
    try:
        return parse(word)
    except InvalidItemError:
        raise
    except ValueError as exc:
        raise InvalidItemError(word, str(exc)) from exc


def settled(
    found: Mapping[str, Via],
    registries: Sequence[str],
    fallback: str,
    *,
    forced: bool = False,
    strict: bool = False,
) -> dict[str, Via]:
    """`found` with every source named and every fallback set.

    Args:
        forced: whether `fallback` replaces what the items say.
        strict: whether to refuse sources that are not configured.
    """
    named: dict[str, Via] = {}
    for source, via in found.items():
        name = _spelled(source, registries) if source else _first(registries, via)
        if strict and name not in (*registries, *HUBS):
            raise InvalidItemError(source, "is neither a configured registry nor a hub")
        named[name] = Via(via.caches, fallback if forced else via.fallback or fallback)
    return named


def _first(registries: Sequence[str], via: Via) -> str:
    if not registries:
        what = "names no source, and no registry is configured; write SOURCE=CACHE_URL"
        raise InvalidItemError(via.caches, what)
    return str(_item(parse_source, registries[0]))


def _spelled(source: str, registries: Sequence[str]) -> str:
    """The registry that `source` means, which may leave out the options in its URL."""
    same = (url for url in registries if url.partition("?")[0] == source)
    return source if source in registries else next(same, source)
