"""Parse the header fields of an answer.

Pure. RFC 9110 lets the sender choose the case of names, white space, quotes, and whether a list has
one line or several. Both clients parse fields with this module, so they agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import urljoin

# The lines of these fields form one list, in order. Of any other field only the first line counts.
_LISTS = frozenset(
    {"connection", "content-encoding", "link", "transfer-encoding", "www-authenticate"}
)
_URLS = frozenset({"location", "link"})
_PARAMETER = re.compile(r'\s*;\s*(?:([^\s=;,"]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^\s;,"]*))?)?', re.S)
_TARGET = re.compile(r"[\s,]*<([^<>]*)>")


def fields(lines: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The fields by name in lower case. Text is UTF-8, or else ISO 8859-1."""
    found: dict[str, str] = {}
    for raw_name, raw_value in lines:
        name = raw_name.decode("latin-1").lower()
        value = _text(raw_value, in_url=name in _URLS)
        if name in _LISTS and name in found:
            found[name] += f", {value}"
        else:
            found.setdefault(name, value)
    return found


def _text(raw: bytes, *, in_url: bool) -> str:
    try:
        return raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        # In a URL the server means exactly these bytes.
        odd = "%{:02X}" if in_url else "{:c}"
        return "".join(chr(byte) if byte < 128 else odd.format(byte) for byte in raw).strip()


def elements(text: str | None) -> list[str]:
    """The elements of a list without quoted strings, in lower case; empty elements are skipped."""
    return [word for part in (text or "").split(",") if (word := part.strip().lower())]


def media_type(text: str | None) -> tuple[str, dict[str, str]]:
    """The media type of a Content-Type field in lower case, and its parameters."""
    kind, _, rest = (text or "").partition(";")
    return kind.strip().lower(), _parameters(f";{rest}", 0)[0]


def next_page(url: str, link: str | None) -> str | None:
    """The URL that a Link field (RFC 8288) of the answer from `url` calls the next one."""
    at, text = 0, link or ""
    while found := _TARGET.search(text, at):
        parameters, at = _parameters(text, found.end())
        if "next" in parameters.get("rel", "").lower().split():
            with suppress(ValueError):  # not a URL
                return str(urljoin(url, found.group(1).strip()))
            return None
    return None


def _parameters(text: str, at: int) -> tuple[dict[str, str], int]:
    """The `;name=value` pairs from `at` on, and the position after them. If a name is repeated,
    its first value counts."""
    found: dict[str, str] = {}
    while match := _PARAMETER.match(text, at):
        name, value = match.groups(default="")
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.S)
        found.setdefault(name.lower(), value)
        at = match.end()
    return found, at
