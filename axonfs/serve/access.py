"""Who sends a request, by its Authorization header, and what they may read.

Between tokens.py and handler.py. Programs send `Bearer TOKEN`; a browser sends Basic with the token
as its password, which is for reading only: a browser sends that also for pages of other sites. Any
thread.
"""

from __future__ import annotations

import base64
import re

from axonfs.formats.layout import INDEX, MODELS
from axonfs.serve.tokens import ANYONE, EVERY, Grant, Tokens

_MODEL = re.compile(rf"/{MODELS}([^/]+)/")


class Access:
    """Who may do what on a server.

    Args:
        tokens: without them everybody may read, and nobody may write.
        private: whether only tokens may read.
    """

    def __init__(self, tokens: Tokens | None = None, *, private: bool = False) -> None:
        self._tokens = tokens
        self._private = private

    @property
    def writable(self) -> bool:
        """Whether there are tokens, with which one may publish."""
        return self._tokens is not None

    def grant(self, header: str | None, *, writes: bool = False) -> Grant | None:
        """The grant of a request with this Authorization header; None for 401."""
        if self._tokens is None:
            return ANYONE
        if header is None:
            return None if self._private or writes else ANYONE
        secret = _secret(header, browser=not writes)
        return self._tokens.grant(secret) if secret else None


def _secret(header: str, *, browser: bool) -> str | None:
    scheme, _, value = header.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic" and browser:
        try:
            pair = base64.b64decode(value.strip(), validate=True).decode()
        except ValueError:
            return None
        return pair.partition(":")[2]
    return None


def may_read(grant: Grant, path: str) -> bool:
    """Whether `grant` may read the file with this URL path.

    A file below a model belongs to its namespace. An object has no namespace: who knows its digest
    has read a manifest that names it. Lists of several namespaces are filtered (resources.py).
    """
    if match := _MODEL.match(path):
        return grant.may("read", match[1])
    return bool(grant.readable)


def filtered(grant: Grant, path: str) -> bool:
    """Whether `grant` may read only a part of the file with this URL path."""
    return path == f"/{INDEX}" and EVERY not in grant.readable
