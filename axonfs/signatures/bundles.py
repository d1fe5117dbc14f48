"""The file of a version's signatures: one Sigstore bundle per line, in JSON.

Pure. Nothing here verifies a signature. The file comes from outside, so its size and shape are
checked before it is parsed: a bundle is a small tree around one long string, the statement, which
nobody parses before its signature was verified.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from axonfs.errors import MalformedError
from axonfs.formats.manifest import MANIFEST_NAME, Manifest

MAX_SIGNATURES = 16  # of one version
MAX_BYTES = 32 << 20  # of the file
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
# A bundle without its statement: keys, certificates, proofs of a transparency log.
_MAX_FRAME = 64 << 10
_MAX_NODES = 500
# A statement has each file with 64 hex digits and JSON around it, in base64; a manifest has less
# around them. Names that are not ASCII take up to 6 bytes per character.
_PER_MANIFEST = 4


@dataclass(frozen=True, slots=True)
class Signature:
    """A bundle that is not verified yet.

    Args:
        line: the bundle as it is stored.
        key: the sha256 of the PEM of the public key that it names, or empty.
        chain: the certificates in it, the signer's first; DER.
        keyless: whether a Sigstore issued the certificate.
        statement: what it signs: JSON, or anything.
    """

    line: bytes
    key: str
    chain: tuple[bytes, ...]
    keyless: bool
    statement: bytes


def limit_of(manifest: Manifest) -> int:
    """The most bytes that the signatures of a version may have."""
    return min(MAX_BYTES, MAX_SIGNATURES * _bundle_limit(manifest))


def _bundle_limit(manifest: Manifest) -> int:
    return _MAX_FRAME + _PER_MANIFEST * len(manifest.raw)


def parse_signatures(body: bytes) -> list[Signature]:
    """The signatures in a file.

    Raises:
        MalformedError: one of them is no bundle, or there are too many.
    """
    lines = [line for line in body.split(b"\n") if line.strip()]
    if len(lines) > MAX_SIGNATURES:
        raise MalformedError(f"there are more than {MAX_SIGNATURES} signatures")
    return [parse_signature(line) for line in lines]


def parse_signature(line: bytes) -> Signature:
    """
    Raises:
        MalformedError: it is not a Sigstore bundle with one signature.
    """
    if sum(map(line.count, (b"{", b"[", b","))) > _MAX_NODES:
        raise MalformedError("a signature is not a Sigstore bundle: it has too many parts")
    try:
        bundle = json.loads(line)
        envelope, material = bundle["dsseEnvelope"], bundle["verificationMaterial"]
        if bundle["mediaType"] != MEDIA_TYPE or len(envelope["signatures"]) != 1:
            raise ValueError
        chain, keyless = _chain(material)
        key = str((material.get("publicKey") or {}).get("hint") or "")
        statement = b64decode(envelope["payload"], validate=True)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise MalformedError("a signature is not a Sigstore bundle of version 0.3") from exc
    if bool(key) == bool(chain):
        raise MalformedError("a signature names neither its key nor its certificate, or both")
    compact = json.dumps(bundle, separators=(",", ":")).encode()
    if len(compact) - len(envelope["payload"]) > _MAX_FRAME:
        raise MalformedError("a signature is not a Sigstore bundle: it is too large")
    return Signature(compact, key, chain, keyless, statement)


def _chain(material: dict[str, Any]) -> tuple[tuple[bytes, ...], bool]:
    """The certificates, and whether they are those of a Sigstore."""
    keyless = "certificate" in material
    found = material.get("x509CertificateChain") or {}
    listed = [material["certificate"]] if keyless else found.get("certificates") or []
    return tuple(b64decode(item["rawBytes"], validate=True) for item in listed), keyless


def resources(manifest: Manifest) -> dict[str, str]:
    """What a signature of a version states: the sha256 of each file, and of the manifest.

    The manifest names the version, so a signature is of no other one, even with the same files.
    """
    found = {entry.path: entry.digest for entry in manifest.files}
    return found | {MANIFEST_NAME: manifest.digest}


def states(signature: Signature, manifest: Manifest) -> bool:
    """Whether a signature says that it is of this very version. It may be forged."""
    return unlike(signature, manifest) is None


def unlike(signature: Signature, manifest: Manifest) -> str | None:
    """A file that a signature has and the version has not, or that differs; None if all agree."""
    wanted = resources(manifest)
    if len(signature.statement) > _bundle_limit(manifest):
        return "its size"
    try:
        stated = json.loads(signature.statement)["predicate"]["resources"]
        found = {str(item["name"]): (item["algorithm"], item["digest"]) for item in stated}
    except (ValueError, LookupError, TypeError, RecursionError):
        return "its statement"
    differing = [
        path for path in wanted.keys() | found if found.get(path) != ("sha256", wanted.get(path))
    ]
    return min(differing, default=None)


def merged(
    before: bytes,
    new: Iterable[Signature],
    manifest: Manifest,
    replaced: Callable[[Signature], bool] = lambda signature: False,
    *,
    others: bool = False,
) -> bytes:
    """The file of content `before` with more signatures, the newest last.

    Drops what is malformed, signatures that are `replaced`, and the oldest ones beyond the limits.

    Args:
        others: whether to keep signatures of other manifests, before those of this one.
    """
    kept: dict[bytes, None] = {}
    foreign: dict[bytes, None] = {}
    for line in before.split(b"\n"):
        try:
            signature = parse_signature(line) if line.strip() else None
        except MalformedError:
            continue
        if signature and not states(signature, manifest):
            foreign[signature.line] = None
        elif signature and not replaced(signature):
            kept[signature.line] = None
    kept |= dict.fromkeys(signature.line for signature in new)
    lines = [*(foreign if others else ()), *kept][-MAX_SIGNATURES:]
    while sum(len(line) + 1 for line in lines) > MAX_BYTES:
        del lines[0]
    return b"".join(line + b"\n" for line in lines)
