"""Parsers for the values of settings.

Below settings.py, above names.py. A parser takes a string, or the value that YAML made of it, and
raises ValueError. The message completes a sentence that starts with the value: "is not a path".
Pure, except for paths, which depend on the working directory and on home directories.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from axonfs.names import HUBS, printable
from axonfs.settings.store_urls import oci_alias, oci_url, plain_url, s3_url

PREFETCH = ("auto", "off", "all")
LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")

_WORDS = {"1": True, "true": True, "yes": True, "on": True} | {
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}

# One slash is enough: pathlib makes `http:/host` of `http://host`.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
# The way scp and rsync write a path on another machine.
_ELSEWHERE = re.compile(r"[\w.-]+@[\w.-]+:")


class InvalidItemError(ValueError):
    """`item`, one element of a list, is invalid."""

    def __init__(self, item: object, reason: str) -> None:
        super().__init__(reason)
        self.item = item


def as_written(value: object) -> str:
    """`value` in quotes, spelled as in the config file, without the password of a URL."""
    if isinstance(value, dict):
        return "a mapping"
    items = value if isinstance(value, list | tuple) else [value]
    words = {None: "null", True: "true", False: "false"}
    text = " ".join(
        words[item] if item is None or isinstance(item, bool) else str(item) for item in items
    )
    return "'" + re.sub(r"//\S*@", "//…@", printable(text)) + "'"


def parse_registry_url(value: object) -> str:
    """A registry's URL without its trailing slash, a file URL for a path. URLs with credentials are
    refused."""
    text = str(value).strip()
    if text.startswith("s3://"):
        return s3_url(text)
    if text.startswith("oci://"):
        return oci_url(text)
    if text.startswith(("/", "./", "../", "~", "file:")) or text in (".", ".."):
        return "file://" + quote(os.fsencode(parse_path(text)), safe="/+")
    try:
        return parse_web_url(text)
    except NotWebError:
        raise ValueError(
            "is not an http://, https://, s3:// or oci:// URL, nor a path like /srv/registry"
        ) from None


class NotWebError(ValueError):
    """It is not an http or https URL at all."""


def parse_web_url(value: object) -> str:
    """An http or https URL of a directory, without its trailing slash."""
    text = str(value).strip()
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or parts.scheme not in ("http", "https") or port == 0:
        raise NotWebError("is not an http:// or https:// URL")
    if not plain_url(text):
        raise ValueError("has spaces or other characters that a URL must percent-encode")
    if parts.username is not None or parts.password is not None:
        raise ValueError("has credentials in it; use `axonfs registry add URL --with-token`")
    if parts.query or parts.fragment:
        raise ValueError("has a query or a fragment; a registry is a plain directory URL")
    return text.rstrip("/")


def parse_registry_urls(value: object) -> tuple[str, ...]:
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list | tuple):
        raise ValueError("is not a list of URLs")
    found = tuple(dict.fromkeys(map(_listed_url, words)))  # without repeated URLs
    _refuse_shared_aliases(found)
    return found


def _refuse_shared_aliases(urls: Sequence[str]) -> None:
    """Two registries may not have one directory."""
    aliases: dict[str, str] = {}
    for url in urls:
        if url.startswith("oci://") and (before := aliases.setdefault(oci_alias(url), url)) != url:
            reason = f"has the alias of {before}; give it another one: oci://…?alias=NAME"
            raise InvalidItemError(url, reason)


def _listed_url(word: object) -> str:
    try:
        return parse_registry_url(word)
    except ValueError as exc:
        raise InvalidItemError(word, str(exc)) from exc


def parse_path(value: object) -> Path:
    """An absolute path; see `local_path`."""
    return Path(os.path.abspath(local_path(value)))


def local_path(value: object) -> Path:
    """A path on this machine: as it is, below a home directory (`~`), or as a file:// URL.

    Any other URL is refused: as a relative path it would name a directory called `http:`.
    """
    text = str(value) if isinstance(value, str | Path) else ""
    if match := _SCHEME.match(text):
        text = _path_of_url(text, match.group(1).lower())
    if _ELSEWHERE.match(text):
        raise ValueError("is on another machine; begin a local path of this name with ./ or /")
    if not text or "\0" in text:
        raise ValueError("is not a path")
    try:
        # `Path` makes `~x` of `./~x`.
        return Path(text).expanduser() if text.startswith("~") else Path(text)
    except RuntimeError as exc:
        raise ValueError("names a home directory that does not exist") from exc


def _path_of_url(url: str, scheme: str) -> str:
    if scheme != "file":
        raise ValueError("is a URL; use a path or a file:// URL of this machine")
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise ValueError("is not a file URL of this machine, like file:///srv/models")
    return os.fsdecode(unquote(parts.path, errors="surrogateescape"))


def parse_optional_path(value: object) -> Path | None:
    return None if value is None else parse_path(value)


def parse_switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = _WORDS.get(str(value).strip().lower())
    if word is None:
        raise ValueError("is neither true nor false")
    return word


def parse_seconds(value: object) -> float:
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = math.nan
    if isinstance(value, bool) or not 1 <= seconds <= 86400:
        raise ValueError("is not a number of seconds from 1 to 86400")
    return seconds


def whole(low: int, high: int) -> Callable[[object], int]:
    """A parser of whole numbers from `low` to `high`."""

    def parse(value: object) -> int:
        text = "" if isinstance(value, bool) else str(value)
        if not re.fullmatch(r"[0-9]{1,3}", text) or not low <= int(text) <= high:
            raise ValueError(f"is not a number from {low} to {high}")
        return int(text)

    return parse


def one_of(words: Sequence[str]) -> Callable[[object], str]:
    """A parser of one of `words`, in any case."""

    def parse(value: object) -> str:
        word = "off" if value is False else str(value).strip().lower()  # YAML reads off as false
        if word not in words:
            raise ValueError("is not one of " + ", ".join(words))
        return word

    return parse


parse_prefetch = one_of(PREFETCH)
parse_log_format = one_of(LOG_FORMATS)
parse_log_level = one_of(LOG_LEVELS)


def parse_number(value: object) -> int:
    text = "" if isinstance(value, bool) else str(value)
    # The largest number, -1 as unsigned, means "no id".
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) >= (1 << 32) - 1:
        raise ValueError("is not a user or group number")
    return int(text)


def parse_mode(value: object) -> int:
    # YAML reads an unquoted 0440 as an octal number.
    text = f"{value:o}" if isinstance(value, int) and value > 1 else str(value)
    if not re.fullmatch(r"0?[0-7]{3,4}", text):
        raise ValueError("is not an octal mode like 0440")
    mode = int(text, 8)
    if mode & ~0o555:
        raise ValueError("has write, setuid, setgid or sticky bits; the mount is read-only")
    if not mode & 0o400:
        raise ValueError("does not let the owner read")
    return mode


def parse_token(value: object) -> str:
    """A token that is valid in an HTTP header."""
    text = str(value).strip()
    if not text or not plain_url(text) or len(text) > 8192:
        raise ValueError("is not a token: it is empty, too long, or has spaces or odd characters")
    return text


def parse_sources(value: object) -> tuple[str, ...]:
    words = value.split() if isinstance(value, str) else value
    if words in (["none"], ("none",)):
        return ()
    if not isinstance(words, list | tuple) or not set(words) <= set(HUBS):
        raise ValueError(f"is neither 'none' nor a list of {', '.join(HUBS)}")
    return tuple(name for name in HUBS if name in words)


def parse_tokens(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise ValueError("is not a mapping of registry URLs to tokens")
    return {_listed_url(url): parse_token(token) for url, token in value.items()}
