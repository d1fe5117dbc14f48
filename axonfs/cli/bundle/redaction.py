"""Removes secrets from texts: those that are known, and what looks like one.

A word too much is better than a secret: what is removed leaves `REMOVED` in its place. Pure.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from axonfs.settings.store_urls import OCI_OPTIONS, S3_OPTIONS

REMOVED = "REMOVED"
# A shorter one occurs in other words; the patterns find it where it stands for a secret.
SHORTEST = 6

# The words of a name whose value is a secret. A tokenizer is none.
SECRET_NAME = (
    r"(?:tokens?(?![a-z])|secret|passw(?:or)?d|passwd|passphrase|(?<![a-z])auth(?![a-z])|credentials?"
    r"|(?:api|access|private)[_-]?key)"
)
_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{0,15}://[^\s\"'<>|\\]+")
# User and password before a host; a password may have a `/`, against the rules.
_USER = re.compile(r"[^/@]*@|[^/@:]*:(?!\d*/)[^@]*@")
# The same without a scheme, as a proxy may be given. A digest after a tag is no host.
_LOG_IN = re.compile(r"(?<![\w/.@-])([\w.-]{1,64}:)[^\s/@\"']{3,128}(@(?!sha256)[\w.-]+)")
# Options in the URLs of registries, and what is asked of one: no server takes them for secrets.
_PLAIN_OPTIONS = {*S3_OPTIONS, *OCI_OPTIONS, "n", "last", "page", "recursive", "revision"}
_HEADER = re.compile(
    r"(\b(?:proxy-)?authorization|\b(?:set-)?cookie"
    r"|(?<![\w-])x-[\w-]*?(?:token|key|secret|sign|auth)[\w-]*)"
    r"(\\?[\"']?\s*[:=,]\s*b?\\?[\"']?)[^\r\n\"'\\]+",
    re.IGNORECASE,
)
_SCHEME = re.compile(
    r"\b(bearer|basic|digest|negotiate|AWS4-HMAC-SHA256)(\s+)[^\s\"',;]{6,}", re.IGNORECASE
)
_NAMED = re.compile(
    rf"((?<![\w-])[\w-]*?{SECRET_NAME}[\w-]*|(?<![a-z_-])(?:x-amz-)?(?:signature|sig)(?==))"
    r"(\\?[\"']?\s*[:=]\s*b?\\?[\"']?)([^\s\"',;}\])\\]+)",
    re.IGNORECASE,
)
# What stands for a secret without being one.
_NO_SECRET = re.compile(
    rf"\(?(?:set|unset|none|null|true|false|yes|no|axonfs)|\d{{1,3}}|[\[{{]|{REMOVED}",
    re.IGNORECASE,
)
_SHAPES = re.compile(
    r"(?<![\w-])(?:hf_\w{8,}|gh[opsur]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|xox[a-z]-[\w-]{8,}|sk-[\w-]{16,}|A[KS]IA[0-9A-Z]{12,}|eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?)"
)


class Redactor:
    """Removes secrets from texts; `count` says how often it did.

    Args:
        secrets: those that are known; each is removed wherever it occurs, encoded as well.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.count = 0
        forms = {form for secret in secrets for form in _forms(secret)}
        longest = sorted(forms, key=lambda form: (-len(form), form))
        self._known = re.compile("|".join(map(re.escape, longest))) if longest else None

    def __call__(self, text: str) -> str:
        """`text` without secrets."""
        if self._known is not None:
            text = self._sub(self._known, REMOVED, text)
        text = self._sub(_KEY, f"-----{REMOVED} PRIVATE KEY-----", text)
        text = _URL.sub(self._url, text)
        text = self._sub(_LOG_IN, rf"\1{REMOVED}\2", text)
        text = self._sub(_HEADER, rf"\1\2{REMOVED}", text)
        text = self._sub(_SCHEME, rf"\1\2{REMOVED}", text)
        text = self._sub(_SHAPES, REMOVED, text)
        return _NAMED.sub(self._named, text)

    def _sub(self, pattern: re.Pattern[str], by: str, text: str) -> str:
        text, count = pattern.subn(by, text)
        self.count += count
        return text

    def _named(self, match: re.Match[str]) -> str:
        if _NO_SECRET.fullmatch(match[3]):
            return match[0]
        self.count += 1
        return f"{match[1]}{match[2]}{REMOVED}"

    def _url(self, match: re.Match[str]) -> str:
        """A URL without user and password, and without what its query says."""
        scheme, _, rest = match[0].partition("://")
        bare, mark, query = rest.partition("?")
        if _USER.match(bare):
            bare = f"{REMOVED}@{bare.rpartition('@')[2]}"
        found = f"{scheme}://{bare}{mark}{_query(query)}"
        self.count += found != match[0]
        return found


def _query(query: str) -> str:
    query, hash_, _ = query.partition("#")
    parts = (part.partition("=") for part in query.split("&"))
    return "&".join(
        f"{name}={value if name in _PLAIN_OPTIONS else REMOVED}" if equals else _bare(name)
        for name, equals, value in parts
    ) + (f"#{REMOVED}" if hash_ else "")


def _bare(text: str) -> str:
    """The part of a query without a name: some servers take a token so."""
    return text if len(text) < SHORTEST else REMOVED


def _forms(secret: str) -> Iterable[str]:
    """A secret as it is, as URLs have it, and as Basic credentials or a repr have it."""
    if len(secret.strip()) < SHORTEST:
        return
    stripped = secret.strip()
    yield from (stripped, quote(stripped, safe=""), quote_plus(stripped), repr(stripped)[1:-1])
    yield base64.b64encode(stripped.encode()).decode()
    yield base64.urlsafe_b64encode(stripped.encode()).decode()
    if ":" in stripped:  # user:password
        yield from _forms(stripped.partition(":")[2])
