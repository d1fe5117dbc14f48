"""Reads the YAML mapping in a config file, whatever its keys are. Blocking."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from axonfs.errors import ClosedFileError, UsageError

MAX_CONFIG_BYTES = 1 << 20
# PyYAML raises these, beside its own errors, for an invalid date, number or tag.
_SCALAR_ERRORS = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; {} if the file is missing or empty."""
    import yaml

    try:
        raw = _content(path)
    except FileNotFoundError:
        return {}
    except PermissionError as exc:
        raise ClosedFileError("this user may not read the config file", source=str(path)) from exc
    except OSError as exc:
        raise UsageError(f"cannot read the config file: {exc.strerror}", source=str(path)) from exc
    try:
        document = yaml.safe_load(raw)
    except (yaml.YAMLError, *_SCALAR_ERRORS) as exc:
        raise UsageError("the config file is not YAML", source=str(path)) from exc
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise UsageError("the config file is not a mapping of keys", source=str(path))
    return document


def _content(path: Path) -> bytes:
    """
    Raises:
        UsageError: it is too large, or a pipe, which may block and cannot be read twice.
    """
    with open(path, "rb", opener=_at_once) as file:
        if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            what = "the config file is a pipe, which cannot be read more than once"
            raise UsageError(what, source=str(path))
        raw = file.read(MAX_CONFIG_BYTES + 1) or b""
    if len(raw) > MAX_CONFIG_BYTES:
        what = f"the config file has more than {MAX_CONFIG_BYTES >> 20} MiB"
        raise UsageError(what, source=str(path))
    return raw


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # otherwise opening a pipe waits for its writer
