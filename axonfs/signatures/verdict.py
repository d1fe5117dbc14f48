"""Whether somebody whom the user trusts has signed a version, as the result of all its signatures.

The library is imported here, when a signature has to be verified. Blocking; any thread.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from axonfs.errors import AxonError, MalformedError, ShortageError, UntrustedError
from axonfs.formats.manifest import Manifest
from axonfs.settings.signers import Signers
from axonfs.signatures.bundles import Signature, parse_signatures
from axonfs.signatures.extra import require

# Seconds. After that a version that is refused is looked at again: it may be signed by now.
REFUSED_FOR = 10.0
_HINT = "axonfs info shows its signatures, axonfs config get require_signature who has to sign"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a version may be read.

    Args:
        refusal: why it may not; None if it may.
        by: who signed it.
        until: for how long this holds, in unix seconds.
    """

    refusal: UntrustedError | None
    by: str = ""
    until: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether it holds now. A refusal does not after the clock was set back, either."""
        left = self.until - time.time()
        return left > 0 and (self.refusal is None or left <= REFUSED_FOR)


def judge(
    body: bytes | None, manifest: Manifest, groups: Sequence[Signers], *, offline: bool = False
) -> Verdict:
    """Whether one of each group of signers has signed `manifest`.

    Args:
        body: the file of its signatures, from anywhere; None if there is none.
        offline: whether no Sigstore may be asked.

    Raises:
        ShortageError: this process ran out of descriptors or memory.
    """
    try:
        require()
        found = parse_signatures(body) if body else []
        accepted = [_accepted(found, manifest, group, offline=offline) for group in groups]
    except ShortageError:
        raise  # that is no fault of the version
    except AxonError as exc:
        return refused(f"it has to be signed, and {exc.what}", exc)
    by, ends = (values for values in zip(*accepted, strict=True))
    return Verdict(None, ", ".join(dict.fromkeys(by)), min(ends))


def refused(what: str, cause: AxonError | None = None) -> Verdict:
    """The verdict that a version may not be read."""
    refusal = UntrustedError(what, hint=(cause and cause.hint) or _HINT)
    refusal.source = cause.source if cause else None
    refusal.__cause__ = cause
    return Verdict(refusal, until=time.time() + REFUSED_FOR)


def _accepted(
    found: Sequence[Signature], manifest: Manifest, group: Signers, *, offline: bool
) -> tuple[str, float]:
    """By whom of the group, and until when that holds.

    Raises:
        AxonError: by nobody. It says what is wrong with the signature of one of them, if there is
            such a one.
    """
    from axonfs.signatures.verifying import AnotherError, verify

    failure: AxonError | None = None
    for signature in found:
        for signer in group:
            try:
                verified = verify(signature, manifest, signer, offline=offline)
                return verified.by, verified.until
            except ShortageError:
                raise
            except AxonError as exc:
                if failure is None or isinstance(failure, AnotherError):
                    failure = exc
    raise failure or UntrustedError("it has no signature")


def described(
    body: bytes | None, manifest: Manifest, groups: Sequence[Signers], *, offline: bool = False
) -> list[dict[str, object]]:
    """Each signature of a version: `by` whom it says it is, and whether that one is `trusted`.

    Where no signer is required, nothing is verified, and `trusted` is None.
    """
    try:
        require()
        found = parse_signatures(body) if body else []
    except MalformedError as exc:
        return [{"by": "", "trusted": False, "why": exc.what}]
    except AxonError as exc:
        return [{"by": "", "trusted": None, "why": str(exc)}] if body else []
    return [_description(signature, manifest, groups, offline=offline) for signature in found]


def _description(
    signature: Signature, manifest: Manifest, groups: Sequence[Signers], *, offline: bool
) -> dict[str, object]:
    from axonfs.signatures.verifying import claimed

    try:
        by = claimed(signature)
        if not groups:
            return {"by": by, "trusted": None, "why": ""}
        anyone = tuple(signer for group in groups for signer in group)
        by, _ = _accepted([signature], manifest, anyone, offline=offline)
        return {"by": by, "trusted": True, "why": ""}
    except AxonError as exc:
        return {"by": by, "trusted": False, "why": exc.what}
