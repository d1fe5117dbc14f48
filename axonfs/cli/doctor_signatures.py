"""The checks of `axonfs doctor` for the setting `require_signature`."""

from __future__ import annotations

from collections.abc import Iterator

from axonfs.cli.doctor_checks import FAIL, OK, WARN, Check
from axonfs.errors import AxonError
from axonfs.settings.settings import Settings
from axonfs.settings.signers import SignatureRules, TrustedSigner
from axonfs.signatures import require


def signature_checks(settings: Settings) -> Iterator[Check]:
    """Check that the signatures of everybody whom the setting names can be verified."""
    rules = SignatureRules.of(settings.require_signature)
    signers = rules.signers
    for url in rules.registries:
        if url not in {registry.partition("?")[0] for registry in settings.registries}:
            text, hint = f"a rule is for {url}, which is not configured", "axonfs registry list"
            yield Check("signatures", WARN, text, hint)
    if signers:
        try:
            require()
        except AxonError as exc:
            yield Check("signatures", FAIL, exc.what, exc.hint or "")
            return
    for signer in sorted(signers, key=str):
        yield _signer(signer)


def _signer(signer: TrustedSigner) -> Check:
    from axonfs.signatures.verifying import check_signer

    name = "signer"
    try:
        check_signer(signer)
    except AxonError as exc:
        hint = "what it signed is refused; see axonfs config get require_signature"
        return Check(name, FAIL, str(exc), hint)
    return Check(name, OK, f"{signer} is trusted")
