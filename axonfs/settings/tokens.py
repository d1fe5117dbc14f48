"""Where tokens are kept: tokens.yaml beside the config file, so that others may read the latter.

It maps registry URLs to tokens. Tokens in the config file itself are used as well, and moved by the
next edit. Below config. Any thread; nothing here is kept between calls.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from axonfs.errors import ClosedFileError, UsageError

TOKENS = "tokens.yaml"


def tokens_path(config: Path) -> Path:
    """The file of the tokens that go with a config file."""
    return config.with_name(TOKENS)


def with_tokens(
    document: dict[str, tuple[Any, str]], config: Path, read: Callable[[Path], dict[str, Any]]
) -> dict[str, tuple[Any, str]]:
    """A config file's values with those of its tokens file; where both have a token it is the
    latter's.

    Args:
        read: reads the mapping in a YAML file; {} if the file is absent.

    Raises:
        UsageError: the tokens file is invalid, or shows tokens to others.
    """
    path = tokens_path(config)
    if config.name == TOKENS:
        raise UsageError("a file of this name holds tokens alone", source=str(config))
    try:
        tokens = read(path)
    except ClosedFileError:
        if _is_own(path):
            raise
        return document  # root's, say: another user has tokens of their own or none
    if not tokens:
        return document
    check_private(path)
    value, where = document.get("tokens", ({}, str(path)))
    if isinstance(value, dict):  # else it is refused where values are checked
        document = {**document, "tokens": ({**value, **tokens}, where)}
    return document


def check_private(path: Path) -> None:
    """Refuse a file with tokens that others can read, or could have put there.

    Another user's file is theirs to close; what this user can read of it they may. Axon's is read
    as it is.

    Raises:
        UsageError: they can, with what to do.
    """
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode
        if _is_own(path) and mode & 0o077:
            what = f"it has tokens, and its mode {mode & 0o7777:04o} shows them to others"
            hint = f"chmod 600 {path}"
            if path.name != TOKENS:
                hint += f", or move them to {tokens_path(path)}, and others may read the rest"
            raise UsageError(what, source=str(path), hint=hint)


def _is_own(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.geteuid()
    except OSError:
        return False
