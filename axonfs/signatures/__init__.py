"""Signatures of versions: who published them. By the model-signing project's library.

A signature is a Sigstore bundle over the digests of a version's files and of its manifest. Above
settings and formats; below catalog, which asks whom a version is signed by, and publish, which
signs. `signing` and `verifying` import the library, in the extra `axonfs[sign]`, which takes a
third of a second and 50 MiB; so their users call `require` and import them where they sign or
verify. Blocking; any thread.
"""

from axonfs.signatures.bundles import (
    MAX_BYTES,
    MAX_SIGNATURES,
    Signature,
    limit_of,
    merged,
    parse_signature,
    parse_signatures,
    states,
    unlike,
)
from axonfs.signatures.extra import require

__all__ = [
    "MAX_BYTES",
    "MAX_SIGNATURES",
    "Signature",
    "limit_of",
    "merged",
    "parse_signature",
    "parse_signatures",
    "require",
    "states",
    "unlike",
]
