"""Makes signatures: with a key, with a key and its certificate, or with a Sigstore.

Imports the library. Blocking. Without a key the library asks a Sigstore, by its own requests, and
may open a browser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509 import (
    Certificate,
    ExtendedKeyUsage,
    KeyUsage,
    load_pem_x509_certificate,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from model_signing import signing

from axonfs.errors import AxonError, UsageError
from axonfs.formats.manifest import Manifest
from axonfs.signatures.bundles import Signature, parse_signature
from axonfs.signatures.modelsigning import (
    CURVES,
    Known,
    fingerprint,
    in_memory,
    outdated,
    read_pem,
    reason,
    signing_config,
)


class Signer:
    """Signs versions, as `config` of the library says.

    Args:
        key: the fingerprint of its public key, or empty.
        certificate: its certificate in DER, or empty.
    """

    def __init__(self, config: signing.Config, key: str = "", certificate: bytes = b"") -> None:
        self._config = config
        self._key = key
        self._certificate = certificate

    def sign(self, manifest: Manifest) -> Signature:
        """A signature of a version.

        Raises:
            AxonError: a file of it has no sha256, or the Sigstore does not answer.
        """
        _check_signable(manifest)
        with in_memory() as out:
            try:
                self._config.set_hashing_config(Known(manifest)).sign(".", out)
            except Exception as exc:  # of a Sigstore, and of the network
                raise AxonError(f"cannot sign: {reason(exc)}", spec=str(manifest.spec)) from exc
            return parse_signature(out.read_bytes())

    def made(self, signature: Signature) -> bool:
        """Whether a signature names this signer's key or certificate, so that a new one replaces
        it."""
        if self._certificate:
            return signature.chain[:1] == (self._certificate,)
        return bool(self._key) and signature.key == self._key


def keyless_signer() -> Signer:
    """Have a Sigstore vouch for an identity: that of the environment, else one with which the user
    logs in.

    Raises:
        AxonError: the Sigstore does not answer.
    """
    try:
        return Signer(signing_config().use_sigstore_signer(use_ambient_credentials=True))
    except Exception as exc:  # whatever the library, and the network below it, raise
        raise AxonError(f"the Sigstore does not answer: {reason(exc)}") from exc


def key_signer(
    path: Path,
    password: Callable[[], bytes],
    certificate: Path | None = None,
    chain: Sequence[Path] = (),
) -> Signer:
    """Sign with the private key in a PEM file.

    Args:
        password: called if the key is encrypted.
        certificate: that of the key. `chain`: those of the authorities between it and the one that
            others trust. PEM.

    Raises:
        UsageError: a file is not what it should be, or the certificate has expired.
        AxonError: a file cannot be read.
    """
    key = _private_key(path, password)
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with in_memory(plain) as secret:  # for certificates the library takes no password
        if certificate is None:
            config = signing_config().use_elliptic_key_signer(private_key=secret)
            return Signer(config, key=fingerprint(key.public_key()))
        der = _certificate(certificate, key)
        try:
            config = signing_config().use_certificate_signer(
                private_key=secret,
                signing_certificate=certificate,
                # Version 1.1.1 fails with an empty chain; the certificate itself adds nothing.
                certificate_chain=list(chain) or [certificate],
            )
        except (OSError, ValueError) as exc:
            what = f"cannot use the chain of certificates: {reason(exc)}"
            raise UsageError(what, source=", ".join(map(str, chain))) from exc
    return Signer(config, certificate=der)


def _check_signable(manifest: Manifest) -> None:
    for entry in manifest.files:
        if entry.named or entry.git:
            what = "the manifest has no sha256 of this file, so nobody can sign it"
            raise AxonError(what, spec=str(manifest.spec), path=entry.path)
    if not manifest.shown:
        what = "it has a file manifest.yaml of its own, so nobody can sign its manifest"
        raise AxonError(what, spec=str(manifest.spec))


def _private_key(path: Path, password: Callable[[], bytes]) -> EllipticCurvePrivateKey:
    raw = read_pem(path)
    try:
        key = load_pem_private_key(raw, None)
    except TypeError:  # it is encrypted
        try:
            key = load_pem_private_key(raw, password())
        except (ValueError, TypeError) as exc:  # TypeError for an empty one
            raise UsageError("the password of the key is wrong", source=str(path)) from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise UsageError("the file is not a private key in PEM", source=str(path)) from exc
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        what = "the key is not on one of the curves P-256, P-384 and P-521"
        hint = "openssl ecparam -name prime256v1 -genkey -noout makes one that is"
        raise UsageError(what, source=str(path), hint=hint)
    return key


def _certificate(path: Path, key: EllipticCurvePrivateKey) -> bytes:
    """The certificate of `key` in DER."""
    try:
        found = load_pem_x509_certificate(read_pem(path))
        public = found.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise UsageError("the file is not a certificate in PEM", source=str(path)) from exc
    if public != key.public_key():
        raise UsageError("the certificate is not that of the key", source=str(path))
    if why := outdated(found):
        raise UsageError(f"the certificate {why}", source=str(path))
    if not _may_sign(found):
        what = "the certificate is not for signatures"
        hint = "it needs the key usage digitalSignature, or codeSigning"
        raise UsageError(what, source=str(path), hint=hint)
    return found.public_bytes(Encoding.DER)


def _may_sign(certificate: Certificate) -> bool:
    """Whether the library accepts a signature with it."""
    uses = [extension.value for extension in certificate.extensions]
    return any(
        (isinstance(use, KeyUsage) and use.digital_signature)
        or (isinstance(use, ExtendedKeyUsage) and ExtendedKeyUsageOID.CODE_SIGNING in use)
        for use in uses
    )
