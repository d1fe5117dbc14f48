"""The secrets that this user and its mounts have, so that a bundle can leave them out. Blocking.

They are looked for where AxonFS and what it builds on read them: variables, the config and tokens
files, the hubs' token files, and the log-ins of docker, AWS and netrc. None leaves this process.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from axonfs.cli.bundle.redaction import SECRET_NAME
from axonfs.errors import AxonError
from axonfs.settings.reading import read_mapping
from axonfs.settings.settings import SYSTEM_CONFIG, load, own_config
from axonfs.settings.tokens import tokens_path
from axonfs.sources import hub_tokens

_NAME = re.compile(rf"{SECRET_NAME}|(?:^|_)(?:key|pass|pat|headers)$", re.IGNORECASE)
_LARGEST = 1 << 20
# Beside the home directory: files of which every value counts as a secret.
_LOG_INS = (
    (".docker/config.json", "DOCKER_CONFIG"),
    (".config/containers/auth.json", "REGISTRY_AUTH_FILE"),
    (".aws/credentials", "AWS_SHARED_CREDENTIALS_FILE"),
    (".netrc", "NETRC"),
    (".cache/huggingface/token", "HF_TOKEN_PATH"),
    (".cache/huggingface/stored_tokens", ""),
    (".modelscope/credentials/git_token", ""),
)


def known_secrets(environments: Iterable[Mapping[str, str]]) -> set[str]:
    """Every secret that is found.

    Args:
        environments: the variables of this process and of mounts.
    """
    found: set[str] = set()
    for variables in environments:
        for name, value in variables.items():
            if is_secret(name):
                found.add(value)
            if name.endswith("_HEADERS"):  # of OpenTelemetry: name=value, …
                found.update(pair.partition("=")[2] for pair in value.split(","))
        for value in variables.values():
            found.update(_in_urls(value))
    found.update(_in_configs())
    with suppress(AxonError, OSError):
        settings = load()
        found.update((*settings.tokens.values(), *hub_tokens(settings).values()))
    for place, variable in _LOG_INS:
        found.update(_in_file(_path(place, os.environ.get(variable, "") if variable else "")))
    return found


def is_secret(name: str) -> bool:
    """Whether a variable or a key with this name has a secret as its value."""
    return _NAME.search(name) is not None


def _in_urls(text: str) -> Iterator[str]:
    """User and password in URLs."""
    for match in re.finditer(r"://([^\s/@]+)@", text):
        yield match[1]


def _in_configs() -> Iterator[str]:
    """The tokens in config files, also in those that are invalid, and passwords in their URLs."""
    with suppress(AxonError):
        for config in filter(None, (own_config(), SYSTEM_CONFIG)):
            for path in (config, tokens_path(config)):
                yield from _in_urls(_text(path))
                with suppress(AxonError, OSError):
                    document = read_mapping(path)
                    inner = document if path == tokens_path(config) else document.get("tokens")
                    yield from _leaves(inner)


def _path(place: str, variable: str) -> Path:
    path = Path(variable or Path.home() / place)
    return path / "config.json" if path.is_dir() else path


def _in_file(path: Path) -> Iterator[str]:
    """The secrets in a file of log-ins: JSON, `name = value`, or one word."""
    text = _text(path)
    with suppress(ValueError):
        yield from _named(json.loads(text))
        return
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and is_secret(name.strip()):
            yield value.strip()
        elif not equals and len(line.split()) == 1:
            yield line.strip()
    yield from re.findall(r"\bpassword\s+(\S+)", text)


def _named(value: Any) -> Iterator[str]:
    """The values below the keys of a JSON document that name a secret."""
    if isinstance(value, dict):
        for key, each in value.items():
            if isinstance(each, str) and is_secret(key):
                yield each
                with suppress(ValueError):  # docker keeps user:password so
                    yield base64.b64decode(each, validate=True).decode()
            yield from _named(each)
    elif isinstance(value, list):
        for each in value:
            yield from _named(each)


def _text(path: Path) -> str:
    with suppress(OSError), path.open(errors="replace") as file:
        return file.read(_LARGEST)
    return ""


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    elif isinstance(value, str | int):
        yield str(value)
