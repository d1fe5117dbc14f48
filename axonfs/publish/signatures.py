"""The signatures in a registry: they are read, added, and checked against the manifest.

Nothing here verifies a signature: whom one trusts is for the reader to say. Blocking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from axonfs.errors import ChangedError, MalformedError, UsageError
from axonfs.formats.layout import signatures_key
from axonfs.formats.manifest import Manifest
from axonfs.names import printable
from axonfs.publish.registry import Registry
from axonfs.signatures import (
    MAX_BYTES,
    Signature,
    limit_of,
    merged,
    parse_signature,
    parse_signatures,
    states,
    unlike,
)

if TYPE_CHECKING:
    from axonfs.signatures.signing import Signer


def add(
    registry: Registry,
    manifest: Manifest,
    new: Sequence[Signature],
    replaced: Callable[[Signature], bool] = lambda signature: False,
) -> None:
    """Add signatures of a version, which may not be published yet.

    Before that, signatures of other manifests stay: several publishers may try to enter theirs, and
    only one succeeds. After that, those of the published one stay alone, and no others are added.

    Args:
        replaced: whether an earlier signature makes way.

    Raises:
        BusyError: other publishers were faster again and again.
    """

    def made(body: bytes) -> bytes:
        entered = registry.manifest(manifest.spec)
        if entered and entered.digest != manifest.digest:
            return body
        return merged(body, new, manifest, replaced, others=entered is None)

    registry.update(signatures_key(manifest.spec), MAX_BYTES, made)


def checked(body: bytes, manifest: Manifest) -> list[Signature]:
    """The signatures in a file, all of which say that they are of `manifest`.

    Raises:
        MalformedError: it is not a file of signatures.
        ChangedError: one of them is of another version or manifest.
    """
    try:
        found = parse_signatures(body)
    except MalformedError as exc:
        raise MalformedError(f"its signatures are refused: {exc.what}") from exc
    if not all(states(signature, manifest) for signature in found):
        raise ChangedError("it has a signature of another version or manifest")
    return found


def attach(registry: Registry, manifest: Manifest, file: Path) -> None:
    """Add the signature in `file`, which another program has made.

    Raises:
        UsageError: it is no signature, or of something else.
    """
    try:
        with file.open("rb") as opened:
            raw = opened.read(limit_of(manifest))
        signature = parse_signature(b" ".join(raw.split(b"\n")))
    except OSError as exc:
        raise UsageError(f"cannot read the signature: {exc.strerror}", source=str(file)) from exc
    except MalformedError as exc:
        raise UsageError(exc.what, source=str(file)) from exc
    if missing := unlike(signature, manifest):
        what = f"the signature is not of this version: it differs in '{printable(missing)}'"
        raise UsageError(what, spec=str(manifest.spec), source=str(file))
    add(registry, manifest, [signature])


def sign(registry: Registry, manifest: Manifest, signer: Signer) -> Signature:
    """Sign a version with `signer`, in place of an earlier signature by the same one."""
    made = signer.sign(manifest)
    add(registry, manifest, [made], signer.made)
    return made


def drop_others(registry: Registry, manifest: Manifest) -> None:
    """Drop signatures of manifests that other publishers did not enter."""
    add(registry, manifest, [])
