"""What signing and verifying share of model-signing's library, which reads all it needs from files.

The library hashes the files of a directory. A manifest has these digests already, so `Known` passes
them on in place of that. What the library reads and writes otherwise lies in files in memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import Certificate
from model_signing import hashing, signing, verifying
from model_signing._hashing.hashing import Digest
from model_signing.manifest import Manifest as Statement
from model_signing.manifest import SerializationType

from axonfs.descriptors import is_shortage
from axonfs.errors import AxonError, refused
from axonfs.formats.manifest import Manifest
from axonfs.names import plain
from axonfs.signatures.bundles import resources

MAX_PEM_BYTES = 1 << 20
CURVES = ("secp256r1", "secp384r1", "secp521r1")


class Known(hashing.Config):
    """Hashes nothing: the digests are those of the manifest `signed`.

    `asked`: whether the library has asked for them, which is its last step when it verifies.
    """

    def __init__(self, signed: Manifest) -> None:
        self._signed = signed
        self.asked = False

    def hash(
        self,
        model_path: hashing.PathLike,
        *,
        files_to_hash: Iterable[hashing.PathLike] | None = None,
    ) -> Statement:
        self.asked = True
        method = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
        kind = SerializationType.from_args(method)
        items = [
            kind.new_item(path, Digest("sha256", bytes.fromhex(digest)))
            for path, digest in resources(self._signed).items()
        ]
        return Statement(str(self._signed.spec), items, kind)

    def add_ignored_paths(
        self, *, model_path: hashing.PathLike, paths: Iterable[hashing.PathLike]
    ) -> None:
        """No file is ignored, whatever a signature says."""


def signing_config() -> signing.Config:
    return signing.Config()  # type: ignore[no-untyped-call]


def verifying_config() -> verifying.Config:
    return verifying.Config()  # type: ignore[no-untyped-call]


@contextmanager
def in_memory(content: bytes = b"") -> Iterator[Path]:
    """A file in memory with this content, which no other user can read."""
    try:
        descriptor = os.memfd_create("axonfs-signature", os.MFD_CLOEXEC)
    except OSError as exc:
        raise refused(exc) from exc
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def read_pem(path: Path) -> bytes:
    """The content of a small file.

    Raises:
        AxonError: it cannot be read.
    """
    try:
        with open(path, "rb", opener=_at_once) as file:
            return file.read(MAX_PEM_BYTES) or b""
    except OSError as exc:
        if is_shortage(exc):
            raise refused(exc) from exc
        raise AxonError(f"the file cannot be read: {exc.strerror}", source=str(path)) from exc


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # otherwise opening a pipe waits for its writer


def fingerprint(key: EllipticCurvePublicKey) -> str:
    """What bundles name a public key by: the sha256 of its PEM."""
    written = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(written).hexdigest()


def outdated(certificate: Certificate) -> str | None:
    """Why a certificate is not valid now; None if it is."""
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    return None


def reason(exc: BaseException) -> str:
    """The message of an exception of the library, on one line."""
    return plain(str(exc), 300) or type(exc).__name__
