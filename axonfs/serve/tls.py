"""The server's certificate and key, loaded again when their files are renewed.

A renewal replaces two files, so one may be new while the other is old: then the pair of before
stays in use until both fit. Any thread.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
from pathlib import Path

from axonfs.errors import UsageError

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


class Certificate:
    """The certificate chain in the PEM file `cert`, and the key in `key`.

    Raises:
        UsageError: the files cannot be used.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._files = (cert, key)
        self._lock = threading.Lock()
        self._looked = time.monotonic()
        self._seen = self._state()
        self._context = _loaded(cert, key)

    @property
    def context(self) -> ssl.SSLContext:
        """For new connections."""
        return self._context

    def refresh(self, *, force: bool = False) -> None:
        """Load the files again if they have changed, or if `force`; look once a second at most."""
        with self._lock:
            now = time.monotonic()
            if not force and now - self._looked < LOOK_SECONDS:
                return
            self._looked = now
            state = self._state()
            if state == self._seen and not force:
                return
            self._seen = state
            try:
                self._context = _loaded(*self._files)
            except UsageError as exc:
                log.error("the certificate of before stays in use: %s", exc)
                return
            log.warning("the certificate is loaded again from %s", self._files[0])

    def _state(self) -> list[object]:
        found: list[object] = []
        for path in self._files:
            try:
                status = os.stat(path)
                found.append((status.st_ino, status.st_mtime_ns, status.st_size))
            except OSError:
                found.append(None)
        return found


def _loaded(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for path in (cert, key):
        try:
            path.open("rb").close()
        except OSError as exc:
            raise UsageError(f"cannot read the file: {exc.strerror}", source=str(path)) from exc
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except _EncryptedError as exc:
        hint = "give one that is not; openssl pkey -in KEY -out NEW decrypts it"
        raise UsageError("the key is encrypted", source=str(key), hint=hint) from exc
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            what = f"the key does not belong to the certificate in {cert}"
            raise UsageError(what, source=str(key)) from exc
        what = "this pair of files is not a certificate and its key in PEM form"
        raise UsageError(what, source=f"{cert} and {key}") from exc
    return context


class _EncryptedError(Exception):
    """The key needs a password, for which OpenSSL would ask on the terminal."""


def _no_password() -> str:
    raise _EncryptedError
