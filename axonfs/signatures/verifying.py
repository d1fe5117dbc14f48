"""Verifies signatures: that someone whom the user trusts signed this very manifest.

Imports the library, which verifies the signature and the chain of certificates. Its version 1.1.1
takes a certificate for valid for ever, so the times are compared here. Blocking; any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key
from model_signing import verifying

from axonfs.errors import AxonError, UntrustedError
from axonfs.formats.manifest import Manifest
from axonfs.names import plain
from axonfs.settings.signers import TrustedSigner
from axonfs.signatures.bundles import Signature
from axonfs.signatures.modelsigning import (
    CURVES,
    Known,
    fingerprint,
    in_memory,
    outdated,
    read_pem,
    reason,
    verifying_config,
)

FOREVER = float("inf")


class AnotherError(UntrustedError):
    """Somebody else has made the signature, by what it says itself."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature that was verified: who made it, and until when it is valid (unix seconds)."""

    by: str
    until: float = FOREVER


def verify(
    signature: Signature, manifest: Manifest, signer: TrustedSigner, *, offline: bool = False
) -> Verified:
    """Verify that `signature` is of `manifest`, and by `signer`.

    Args:
        offline: whether no Sigstore may be asked for its present keys.

    Raises:
        UntrustedError: it is not.
        AxonError: the file with the signer's key cannot be used.
    """
    if signer.keyless:
        return _by_identity(signature, manifest, signer, offline=offline)
    raw = read_pem(Path(signer.authority))
    if b"BEGIN CERTIFICATE" in raw:
        return _by_certificate(signature, manifest, signer, raw)
    return _by_key(signature, manifest, signer, raw)


def check_signer(signer: TrustedSigner) -> None:
    """Check that signatures of `signer` can be verified; sends nothing.

    Raises:
        AxonError: its file is not a public key or a certificate, or expired.
    """
    if signer.keyless:
        return
    raw = read_pem(Path(signer.authority))
    if b"BEGIN CERTIFICATE" in raw:
        _authorities(raw, signer)
    else:
        _key_of(raw, signer)


def claimed(signature: Signature) -> str:
    """Who the signature says that made it; it may be forged."""
    if signature.key:
        return f"key sha256:{plain(signature.key, 16)}"
    names = _identities(_loaded(signature.chain[:1])[0])
    kind = "Sigstore certificate" if signature.keyless else "certificate"
    return f"a {kind} of {plain(names[0]) if names else 'nobody'}"


def _by_key(
    signature: Signature, manifest: Manifest, signer: TrustedSigner, raw: bytes
) -> Verified:
    key = _key_of(raw, signer)
    if signature.key != key:
        raise _by_another(signature)
    with in_memory(raw) as path:
        _verify(verifying_config().use_elliptic_key_verifier(public_key=path), signature, manifest)
    return Verified(claimed(signature))


def _by_certificate(
    signature: Signature, manifest: Manifest, signer: TrustedSigner, raw: bytes
) -> Verified:
    authorities = _authorities(raw, signer)
    if not signature.chain or signature.keyless:
        raise _by_another(signature)
    chain = _loaded(signature.chain)
    if signer.identity and signer.identity not in _identities(chain[0]):
        raise _by_another(signature)
    for certificate in chain:
        if why := outdated(certificate):
            raise UntrustedError(f"a certificate of its signature {why}")
    pems = b"".join(one.public_bytes(Encoding.PEM) for one in authorities)
    with in_memory(pems) as path:
        config = verifying_config().use_certificate_verifier(certificate_chain=[path])
        _verify(config, signature, manifest)
    ends = min(certificate.not_valid_after_utc for certificate in (*chain, *authorities))
    return Verified(claimed(signature), ends.timestamp())


def _by_identity(
    signature: Signature, manifest: Manifest, signer: TrustedSigner, *, offline: bool
) -> Verified:
    if not signature.keyless:
        raise _by_another(signature)
    try:
        with in_memory(_known_sigstore() if offline else b"") as path:
            config = verifying_config().use_sigstore_verifier(
                identity=signer.identity,
                oidc_issuer=signer.authority,
                trust_config=path if offline else None,
            )
    except Exception as exc:  # whatever the library, and the network below it, raise
        raise AxonError(f"the Sigstore does not answer: {reason(exc)}") from exc
    _verify(config, signature, manifest)
    return Verified(str(signer))


def _known_sigstore() -> bytes:
    """The keys of Sigstore that the library has, or that it fetched before."""
    from sigstore.models import ClientTrustConfig

    logging.getLogger("sigstore").setLevel(logging.ERROR)  # it warns that it is offline
    return ClientTrustConfig.production(offline=True)._inner.to_json().encode()


def _by_another(signature: Signature) -> AnotherError:
    what = f"it is signed by {claimed(signature)}, whom require_signature does not name"
    return AnotherError(what)


def _verify(config: verifying.Config, signature: Signature, manifest: Manifest) -> None:
    """
    Raises:
        UntrustedError: the signature is wrong, or of something else.
    """
    known = Known(manifest)
    with in_memory(signature.line) as path:
        try:
            config.set_hashing_config(known).verify(".", path)
        except Exception as exc:  # the library, which reads what strangers wrote, raises anything
            changed = isinstance(exc, InvalidSignature)
            what = f"its signature is not valid: {'it was changed' if changed else reason(exc)}"
            if known.asked:
                what = "its signature is of other files, or of another version or manifest"
            raise UntrustedError(what) from exc


def _key_of(raw: bytes, signer: TrustedSigner) -> str:
    """The fingerprint of the public key in PEM."""
    try:
        key = load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise _useless(signer, "is neither a public key nor a certificate in PEM") from exc
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise _useless(signer, "is not a key on one of the curves P-256, P-384 and P-521")
    if signer.identity:
        raise _useless(signer, "is a key, which has no identity; give its path alone")
    return fingerprint(key)


def _authorities(raw: bytes, signer: TrustedSigner) -> list[x509.Certificate]:
    """The certificates in PEM that are valid now."""
    try:
        found = x509.load_pem_x509_certificates(raw)
    except ValueError as exc:
        raise _useless(signer, "has a malformed certificate") from exc
    valid = [certificate for certificate in found if not outdated(certificate)]
    if not valid:
        raise _useless(signer, f"has a certificate that {outdated(found[0])}")
    return valid


def _useless(signer: TrustedSigner, why: str) -> AxonError:
    return AxonError(f"the file that require_signature names {why}", source=signer.authority)


def _loaded(chain: Sequence[bytes]) -> list[x509.Certificate]:
    try:
        return [x509.load_der_x509_certificate(der) for der in chain]
    except ValueError as exc:
        raise _malformed() from exc


def _identities(certificate: x509.Certificate) -> list[str]:
    """The addresses, URIs and names that a certificate is for; else its common name."""
    kinds = (x509.RFC822Name, x509.UniformResourceIdentifier, x509.DNSName)
    found: list[str] = []
    try:
        for extension in certificate.extensions:
            if isinstance(names := extension.value, x509.SubjectAlternativeName):
                found += [str(one) for kind in kinds for one in names.get_values_for_type(kind)]
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    except Exception as exc:  # extensions are parsed here, and raise anything
        raise _malformed() from exc
    return found or [str(name.value) for name in common]


def _malformed() -> UntrustedError:
    return UntrustedError("its signature has a malformed certificate")
