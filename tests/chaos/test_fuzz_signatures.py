"""Whatever a registry sends in place of signatures, nobody is believed who did not sign."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.errors import MalformedError
from axonfs.formats.manifest import Manifest, parse_manifest, render_manifest
from axonfs.settings.signers import TrustedSigner
from axonfs.signatures import Signature, merged, parse_signatures, unlike
from axonfs.signatures.signing import key_signer
from axonfs.signatures.verdict import Verdict, judge
from tests.chaos.test_fuzz import MANIFEST, SPEC, attempt, budget, mangled
from tests.support.signing import Authority, key_pair, no_password

SIGNED = parse_manifest(MANIFEST, SPEC)
OTHER = replace(SIGNED, license="another")
OTHER = replace(OTHER, raw=render_manifest(OTHER))
KEYS = TemporaryDirectory()
HERE = Path(KEYS.name)


def samples() -> tuple[list[bytes], list[tuple[TrustedSigner]]]:
    """Signatures by a key and by a certificate, and their signers as separate groups."""
    key, authority = key_pair(HERE, "team"), Authority(HERE, "authority")
    certificate = authority.issue(HERE, "alice@example.org")
    signers = [
        key_signer(key, no_password),
        key_signer(certificate.with_suffix(".key"), no_password, certificate),
    ]
    trusted = [TrustedSigner(str(path)) for path in (key.with_suffix(".pub"), authority.path)]
    return [signer.sign(SIGNED).line for signer in signers], [(one,) for one in trusted]


LINES, GROUPS = samples()


@pytest.fixture(scope="module", autouse=True)
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()
    KEYS.cleanup()


@budget
@given(mangled(*LINES, b"\n".join(LINES)), st.sampled_from(GROUPS))
def test_signatures(body: bytes, group: tuple[TrustedSigner]) -> None:
    def verdict(manifest: Manifest) -> object:
        return attempt("signatures", lambda raw: judge(raw, manifest, [group]), body)

    refused = verdict(OTHER)
    assert isinstance(refused, Verdict)
    assert refused.refusal is not None
    assert str(refused.refusal).isprintable()
    found = verdict(SIGNED)
    assert isinstance(found, Verdict)
    if found.refusal is None:
        assert any(unlike(one, SIGNED) is None for one in parse_signatures(body))


@budget
@given(mangled(*LINES, b"\n".join(LINES)))
def test_a_file_of_signatures(body: bytes) -> None:
    parsed = attempt("signature file", parse_signatures, body, MalformedError)
    for one in parsed if isinstance(parsed, list) else ():
        assert isinstance(one, Signature)
        unlike(one, SIGNED)
    kept = attempt("signatures to keep", lambda raw: merged(raw, [], SIGNED), body)
    assert isinstance(kept, bytes)
    assert all(unlike(one, SIGNED) is None for one in parse_signatures(kept))
