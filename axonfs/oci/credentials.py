"""The user's credentials for a registry, where docker and podman keep them.

    $DOCKER_CONFIG/config.json, else ~/.docker/config.json      auths, credHelpers, credsStore
    $REGISTRY_AUTH_FILE, then containers/auth.json in $XDG_RUNTIME_DIR (else /run/containers/UID)
    and in $XDG_CONFIG_HOME or ~/.config      auths, as podman and skopeo write it

A credential helper is a program `docker-credential-NAME`; it reads the host and prints JSON. Files
are read each time, so a mount uses a new log-in without a restart. Blocking; any thread.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from axonfs.names import plain
from axonfs.oci.place import place_of
from axonfs.settings.homes import below_home, expanded

log = logging.getLogger(__name__)

DOCKER_HUB = "docker.io"
# Where docker keeps a log-in to its own hub, and the hosts that serve the hub.
_HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
HELPER_SECONDS = 15.0
MAX_FILE_BYTES = 1 << 20
_TOKEN_USER = "<token>"
_RUN = "/run/containers"
# What helpers say, by their protocol on stdout, of a registry that they do not know.
_NOT_KNOWN = "credentials not found"
_HELPER = re.compile(r"[A-Za-z0-9._-]+")


class Credentials(NamedTuple):
    """A user and a password, or an `identity`: a token that the registry's token server takes."""

    user: str = ""
    password: str = ""
    identity: str = ""

    def __repr__(self) -> str:
        return f"<Credentials of {self.user or 'a token'}>"

    @property
    def basic(self) -> str:
        """The value of an Authorization field."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def given_for(host: str, tokens: Mapping[str, str]) -> dict[str, Credentials]:
    """The log-ins for the registries at `host`, by the prefix of their repositories.

    Args:
        tokens: `user:password` by the URL of a registry. What has another form is none of an OCI
            registry, and goes to none: AXONFS_TOKEN may be of a server.
    """
    found: dict[str, Credentials] = {}
    for url, token in tokens.items():
        user, colon, password = token.partition(":")
        if colon and url.startswith("oci:") and (place := place_of(url)).host == host:
            found[place.prefix] = Credentials(user, password)
    return found


def credentials_of(host: str, repository: str = "") -> Credentials | None:
    """The credentials for a repository of the registry at `host`; None without any."""
    for path in _files():
        found = _in_file(path, host, repository)
        if found:
            return found
    return None


def _files() -> Iterator[Path]:
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        yield expanded(named)
    if named := os.environ.get("DOCKER_CONFIG"):
        yield expanded(named) / "config.json"
    elif own := below_home(".docker", variable="DOCKER_CONFIG"):
        yield own / "config.json"
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "containers", "auth.json")
    else:
        yield Path(_RUN, str(os.geteuid()), "auth.json")
    if kept := below_home(".config", "containers", variable="XDG_CONFIG_HOME"):
        yield kept / "auth.json"


def _in_file(path: Path, host: str, repository: str) -> Credentials | None:
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(MAX_FILE_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as exc:
        log.warning("%s is not used: %s", path, getattr(exc, "strerror", None) or "it is no JSON")
        return None
    if not isinstance(config, dict):
        return None
    keys, helpers = _keys(host), _mapping(config, "credHelpers")
    # A store has the usual name only. A helper that hangs is asked once.
    own = next((key for key in keys if helpers.get(key)), keys[0])
    helper = helpers.get(own) or config.get("credsStore")
    if helper and (found := _of_helper(str(helper), own)):
        return found
    auths = _mapping(config, "auths")
    for key in (*_narrower(host, repository), *keys):
        if found := _of_entry(auths.get(key)):
            return found
    return None


def _mapping(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = config.get(key)
    return found if isinstance(found, dict) else {}


def _keys(host: str) -> list[str]:
    """The names under which a registry may be kept, the usual one first."""
    if host in _HUB_HOSTS:
        return [_HUB_KEY, *sorted(_HUB_HOSTS)]
    return [
        host,
        f"https://{host}",
        f"https://{host}/",
        f"https://{host}/v1/",
        f"https://{host}/v2/",
    ]


def _narrower(host: str, repository: str) -> Iterator[str]:
    """podman keeps credentials of a part of a registry, too: `host/a/b`, then `host/a`."""
    segments = repository.split("/") if repository else []
    for count in range(len(segments), 0, -1):
        yield "/".join((host, *segments[:count]))


def _of_entry(entry: object) -> Credentials | None:
    if not isinstance(entry, dict):
        return None
    if token := entry.get("identitytoken"):
        return Credentials(identity=str(token))
    user, password = entry.get("username"), entry.get("password")
    if not user:
        user, _, password = _decoded(entry.get("auth")).partition(":")
    return Credentials(str(user), str(password or "")) if user else None


def _decoded(text: object) -> str:
    try:
        return base64.b64decode(str(text or ""), validate=True).decode().rstrip("\0")
    except (binascii.Error, ValueError):
        return ""


def _of_helper(name: str, key: str) -> Credentials | None:
    """What the credential helper `name` has for `key`."""
    if not _HELPER.fullmatch(name):
        return None
    command = [f"docker-credential-{name}", "get"]
    try:
        done = subprocess.run(
            command, input=key.encode(), capture_output=True, timeout=HELPER_SECONDS, check=False
        )
        if done.returncode:
            _complain(command[0], done)
            return None
        found = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError, RecursionError) as exc:
        log.warning("%s does not work: %s", command[0], _reason(exc))
        return None
    if not isinstance(found, dict) or not found.get("Secret"):
        return None
    user, secret = str(found.get("Username") or ""), str(found["Secret"])
    return Credentials(identity=secret) if user == _TOKEN_USER else Credentials(user, secret)


def _complain(name: str, done: subprocess.CompletedProcess[bytes]) -> None:
    """Log why a helper failed, unless it only does not know the registry."""
    said = (done.stdout.strip() or done.stderr).decode("utf-8", "replace")
    if said.startswith("{"):
        said = ""  # credentials
    if _NOT_KNOWN not in said:
        log.warning("%s failed with exit code %d: %s", name, done.returncode, plain(said))


def _reason(exc: Exception) -> str:
    """Why a helper does not work, without what it printed."""
    if isinstance(exc, subprocess.TimeoutExpired):
        return f"no answer within {HELPER_SECONDS:g} s"
    return getattr(exc, "strerror", None) or "it printed no JSON"
