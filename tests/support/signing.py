"""Keys and certificates for tests of signatures."""

from __future__ import annotations

import datetime
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from axonfs.formats.manifest import Manifest
from axonfs.signatures import Signature, parse_signature
from axonfs.signatures.bundles import MEDIA_TYPE

DAY = datetime.timedelta(days=1)


def no_password() -> bytes:
    raise AssertionError("nobody may ask for a password")


def key_pair(directory: Path, name: str, password: str | None = None) -> Path:
    """Write NAME.key and NAME.pub; return the path of the private key."""
    directory.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    kept: KeySerializationEncryption = NoEncryption()
    if password is not None:
        kept = BestAvailableEncryption(password.encode())
    path = directory / f"{name}.key"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, kept))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)
    return path


def bundle(of: Manifest, key: str = "k1", **changes: Any) -> bytes:
    """A bundle that says that it is of a manifest, and that nobody has signed."""
    files = {entry.path: entry.digest for entry in of.files} | {"manifest.yaml": of.digest}
    resources = [
        {"name": name, "algorithm": "sha256", "digest": digest} for name, digest in files.items()
    ]
    statement = json.dumps({"predicate": {"resources": resources}}).encode()
    made: dict[str, Any] = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": b64encode(statement).decode(),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": "AAAA"}],
        },
    }
    return json.dumps(made | changes, separators=(",", ":")).encode()


class UnverifiedSigner:
    """Signs with such bundles, without the library, whose import takes long."""

    def __init__(self, key: str = "k1") -> None:
        self._key = key

    def sign(self, manifest: Manifest) -> Signature:
        return parse_signature(bundle(manifest, self._key))

    def made(self, signature: Signature) -> bool:
        return signature.key == self._key


class Authority:
    """A certificate authority in NAME.pem."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir(exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        basic = x509.BasicConstraints(ca=True, path_length=None)
        now = datetime.datetime.now(datetime.UTC)
        made = self._builder(self._name, self._key.public_key(), now - 900 * DAY, now + 900 * DAY)
        made = made.add_extension(basic, critical=True)
        self.path = directory / f"{name}.pem"
        self.path.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        start: datetime.datetime,
        stop: datetime.datetime,
    ) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name)
        builder = builder.public_key(key).serial_number(x509.random_serial_number())
        return builder.not_valid_before(start).not_valid_after(stop)

    def issue(
        self, directory: Path, who: str, start: float = -1, stop: float = 30, *, signs: bool = True
    ) -> Path:
        """Write WHO.key and WHO.crt, valid from `start` to `stop` days from now; return the path of
        the certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = directory / f"{who}.crt"
        path.with_suffix(".key").write_bytes(plain)
        now = datetime.datetime.now(datetime.UTC)
        made = self._builder(_name(who), key.public_key(), now + start * DAY, now + stop * DAY)
        for extension in (_usage(signs), x509.SubjectAlternativeName([x509.RFC822Name(who)])):
            made = made.add_extension(extension, critical=False)
        path.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        return path


def _usage(signs: bool) -> x509.KeyUsage:
    others = (
        "content_commitment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    usage = dict.fromkeys(others, False)
    return x509.KeyUsage(digital_signature=signs, key_encipherment=not signs, **usage)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
