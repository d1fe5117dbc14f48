"""The Content-Security-Policy of a document that has its style and script in itself. Pure."""

from __future__ import annotations

import hashlib
from base64 import b64encode


def policy(style: str, script: str, *allowed: str) -> str:
    """A policy that allows the document's own style and script, by their hashes, and else nothing.

    Args:
        allowed: directives for what it needs besides, like `img-src data:`.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            *allowed,
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hash(text: str) -> str:
    return "sha256-" + b64encode(hashlib.sha256(text.encode()).digest()).decode()
