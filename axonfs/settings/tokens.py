"""Tokens live in tokens.yaml beside the config file, so other users may read the config file.

tokens.yaml maps registry URLs to tokens. Tokens in the config file work as well; the next edit
moves them. Below settings.py. Any thread; nothing here is kept between calls.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from axonfs.errors import ClosedFileError, UsageError
from axonfs.names import word

TOKENS = "tokens.yaml"


def tokens_path(config: Path) -> Path:
    """The tokens file of a config file."""
    return config.with_name(TOKENS)


def with_tokens(
    document: dict[str, tuple[Any, str]], config: Path, read: Callable[[Path], dict[str, Any]]
) -> dict[str, tuple[Any, str]]:
    """A config file's values, with the tokens of its tokens file added.

    A token in the tokens file goes before one for the same registry in the config file.

    Args:
        read: reads the mapping in a YAML file; {} if the file is missing.

    Raises:
        UsageError: the tokens file is invalid, or other users can read it.
    """
    path = tokens_path(config)
    if config.name == TOKENS:
        raise UsageError(
            "this name is reserved for the tokens file",
            source=str(config),
            hint="name the config file differently",
        )
    try:
        tokens = read(path)
    except ClosedFileError:
        if _is_own(path):
            raise
        return document  # another user's (root's, say): this user's tokens are not in it
    if not tokens:
        return document
    check_private(path)
    value, where = document.get("tokens", ({}, str(path)))
    if isinstance(value, dict):  # `convert` refuses other types later
        document = {**document, "tokens": ({**value, **tokens}, where)}
    return document


def check_private(path: Path) -> None:
    """Refuse this user's file with tokens if other users can read or write it.

    Only the owner can change the mode, so files of other users are accepted.

    Raises:
        UsageError: the mode is too open; the hint says how to change it.
    """
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode
        if _is_own(path) and mode & 0o077:
            what = f"its mode {mode & 0o7777:04o} lets other users read the tokens in it"
            hint = f"chmod 600 {word(path)}"
            if path.name != TOKENS:
                hint += f", or move the tokens to {tokens_path(path)}"
            raise UsageError(what, source=str(path), hint=hint)


def _is_own(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.geteuid()
    except OSError:
        return False
