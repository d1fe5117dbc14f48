"""The tokens of a server: a file that has a digest of each secret, and what it may be used for.

    ci:
      sha256: 9f86d081…
      publish: [nlp]
      created: 2026-11-29

A secret is 256 random bits, so one sha256 of it is enough: nobody can try them all. The file is
read again when it changes, so a revoked token ends at once. Any thread.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from axonfs.errors import NotFoundError, UsageError
from axonfs.names import printable, valid_segment, word

log = logging.getLogger(__name__)

RIGHTS = ("read", "publish", "remove")
EVERY = "*"  # in place of a namespace
MAX_FILE_BYTES = 1 << 20
_PREFIX = "axonfs_"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody may do in each namespace; `name` is that of the token."""

    name: str
    read: frozenset[str] = frozenset()
    publish: frozenset[str] = frozenset()
    remove: frozenset[str] = frozenset()
    created: str = ""

    def may(self, right: str, namespace: str) -> bool:
        """Whether it gives this right. Who may publish or remove may also read."""
        held: frozenset[str] = getattr(self, right)
        if right == "read":
            held |= self.publish | self.remove
        return bool(held & {namespace, EVERY})

    @property
    def readable(self) -> frozenset[str]:
        """The namespaces that it may read."""
        return self.read | self.publish | self.remove


ANYONE = Grant("-", read=frozenset({EVERY}))


class Tokens:
    """The tokens in the file `path`.

    Raises:
        UsageError: the file is missing, malformed, or open to other users.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._state = _state(path)
        self._grants = read_tokens(path)

    def grant(self, secret: str) -> Grant | None:
        """The grant of the token with this secret; None if there is no such token."""
        self._refresh()
        digest = _digest(secret)
        found = None
        for known, grant in self._grants.items():
            # Each comparison takes as long as any other, whatever the digests have in common.
            if hmac.compare_digest(known, digest):
                found = grant
        return found

    def _refresh(self) -> None:
        with self._lock:
            if (state := _state(self._path)) == self._state:
                return
            self._state = state
            try:
                self._grants = read_tokens(self._path)
            except UsageError as exc:  # a typo in the file must not shut everybody out
                log.error("the tokens of before stay valid: %s", exc)
            else:
                log.info("the tokens are loaded again from %s", self._path)


def read_tokens(path: Path) -> dict[str, Grant]:
    """The grants in a tokens file, by the digest of the secret.

    Raises:
        UsageError: the file is missing, malformed, or open to other users.
    """
    found: dict[str, Grant] = {}
    for name, item in _document(path).items():
        try:
            digest, grant = _entry(name, item)
        except ValueError as exc:
            shown = f"{printable(str(name), 80)}: {exc}"
            raise UsageError(f"the tokens file is malformed: {shown}", source=str(path)) from exc
        found[digest] = grant
    return found


def create_token(path: Path, grant: Grant) -> str:
    """Add a token with the rights of `grant` to the file, which is made if it is missing; return
    its secret.

    Raises:
        UsageError: there is a token of this name, or a name is invalid.
    """
    secret = _PREFIX + secrets.token_urlsafe(32)
    item: dict[str, Any] = {"sha256": _digest(secret)}
    item |= {right: sorted(getattr(grant, right)) for right in RIGHTS if getattr(grant, right)}
    item["created"] = datetime.datetime.now(datetime.UTC).date().isoformat()
    try:
        _entry(grant.name, item)
    except ValueError as exc:
        raise UsageError(f"{printable(grant.name, 80)}: {exc}") from exc
    with _edited(path) as document:
        if grant.name in document:
            hint = "revoke it first, or choose another name"
            raise UsageError(f"there is a token '{grant.name}'", source=str(path), hint=hint)
        document[grant.name] = item
    return secret


def revoke_token(path: Path, name: str) -> None:
    """Remove a token from the file.

    Raises:
        NotFoundError: there is no such token.
    """
    with _edited(path, missing_ok=False) as document:
        if name not in document:
            hint = "axonfs registry token list shows the tokens"
            what = f"there is no token '{printable(name, 80)}'"
            raise NotFoundError(what, source=str(path), hint=hint)
        del document[name]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _entry(name: object, item: object) -> tuple[str, Grant]:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError("a token's name has letters, digits, '.', '_' and '-'")
    if not isinstance(item, dict) or item.keys() - {*RIGHTS, "sha256", "created"}:
        raise ValueError(f"it has keys other than sha256, created, {', '.join(RIGHTS)}")
    digest = item.get("sha256")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ValueError("it has no sha256")
    rights = {right: _namespaces(item.get(right, [])) for right in RIGHTS}
    return digest, Grant(name, **rights, created=str(item.get("created", "")))


def _namespaces(items: object) -> frozenset[str]:
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError("a right is a list of namespaces")
    for item in items:
        if item != EVERY and not valid_segment(item):
            raise ValueError(f"'{printable(item, 80)}' is not a namespace")
    return frozenset(items)


def _state(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode


def _document(path: Path) -> dict[object, object]:
    try:
        with path.open("rb") as file:
            check_closed(file.fileno(), path)
            raw = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as exc:
        hint = "axonfs registry token create makes it"
        raise UsageError("there is no tokens file", source=str(path), hint=hint) from exc
    except OSError as exc:
        raise UsageError(f"cannot read the file: {exc.strerror}", source=str(path)) from exc
    try:
        found = yaml.safe_load(raw) if len(raw) <= MAX_FILE_BYTES else None
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise UsageError("the tokens file is not YAML", source=str(path)) from exc
    if raw.strip() == b"":
        return {}
    if not isinstance(found, dict):
        raise UsageError("the tokens file is not a mapping of tokens", source=str(path))
    return found


def check_closed(fd: int, path: Path) -> None:
    """
    Raises:
        UsageError: others than the owner and the group can read the open file, or others than the
            owner can change it.
    """
    status = os.fstat(fd)
    if status.st_mode & 0o027:
        what = f"its mode {status.st_mode & 0o7777:04o} opens the tokens to other users"
        raise UsageError(what, source=str(path), hint=f"chmod 600 {word(path)}")
    if status.st_uid not in (0, os.geteuid()):
        what = f"it belongs to another user ({status.st_uid}), who can change the tokens"
        raise UsageError(what, source=str(path))


@contextlib.contextmanager
def _edited(path: Path, *, missing_ok: bool = True) -> Iterator[dict[object, object]]:
    """Yield the tokens in the file; the end of the block writes them, unless it raises."""
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            document = {} if missing_ok and not path.exists() else _document(path)
            yield document
            _replace(path, document)
        finally:
            os.close(directory)
    except OSError as exc:
        raise UsageError(f"cannot write the file: {exc.strerror}", source=str(path)) from exc


def _replace(path: Path, document: Mapping[object, object]) -> None:
    target = Path(os.path.realpath(path))
    before = target.stat() if target.exists() else None
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            yaml.safe_dump(dict(document), file, sort_keys=False)
            file.flush()
            if before:  # the server's group may have to read it
                os.fchown(fd, before.st_uid, before.st_gid)
                os.fchmod(fd, before.st_mode & 0o777)
            os.fsync(fd)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
