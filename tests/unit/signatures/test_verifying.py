"""Signatures by the real library: who is believed, and who is not."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from axonfs.errors import AxonError, UntrustedError, UsageError
from axonfs.formats.manifest import FileEntry, Manifest, render_manifest
from axonfs.names import parse_spec
from axonfs.settings.signers import TrustedSigner
from axonfs.signatures import Signature, parse_signature
from axonfs.signatures.signing import key_signer
from axonfs.signatures.verdict import judge
from axonfs.signatures.verifying import check_signer, verify
from tests.support.signing import Authority, bundle, key_pair, no_password

ALICE = "alice@example.org"


def manifest(spec: str = "nlp/tiny@1.0.0", digest: str = "ab" * 32) -> Manifest:
    made = Manifest(parse_spec(spec), (FileEntry("sub/a b.bin", 3, digest),))
    return replace(made, raw=render_manifest(made))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return key_pair(tmp_path, "team")


def signed(key: Path, of: Manifest | None = None, certificate: Path | None = None) -> Signature:
    return key_signer(key, no_password, certificate).sign(of or manifest())


def trusted(path: Path, identity: str = "") -> TrustedSigner:
    return TrustedSigner(str(path), identity)


def test_a_key_is_believed_for_the_manifest_that_it_signed(key: Path) -> None:
    signature, public = signed(key), trusted(key.with_suffix(".pub"))
    assert verify(signature, manifest(), public).by.startswith("key sha256:")
    for other in (
        manifest("nlp/tiny@1.0.1"),
        manifest("nlp/other@1.0.0"),
        manifest(digest="cd" * 32),
    ):
        with pytest.raises(UntrustedError, match="of other files, or of another version"):
            verify(signature, other, public)


def test_another_key_is_not_believed(key: Path, tmp_path: Path) -> None:
    mallory = key_pair(tmp_path, "mallory")
    public = trusted(key.with_suffix(".pub"))
    with pytest.raises(UntrustedError, match="it is signed by key sha256:"):
        verify(signed(mallory), manifest(), public)
    bundle = json.loads(signed(mallory).line)
    bundle["verificationMaterial"] = json.loads(signed(key).line)["verificationMaterial"]
    forged = parse_signature(json.dumps(bundle).encode())
    with pytest.raises(UntrustedError, match="its signature is not valid: it was changed"):
        verify(forged, manifest(), public)


def test_a_signature_that_was_changed_is_not_believed(key: Path) -> None:
    def restated(bundle: dict[str, dict[str, str]]) -> None:
        statement = b64decode(bundle["dsseEnvelope"]["payload"])
        changed = statement.replace(b"ab" * 32, b"cd" * 32)
        bundle["dsseEnvelope"]["payload"] = b64encode(changed).decode()

    def other_type(bundle: dict[str, dict[str, str]]) -> None:
        bundle["dsseEnvelope"]["payloadType"] = "text/plain"

    def no_signature(bundle: dict[str, dict[str, object]]) -> None:
        bundle["dsseEnvelope"]["signatures"] = [{"sig": "", "keyid": ""}]

    changes: list[Callable[..., None]] = [restated, other_type, no_signature]
    for change in changes:
        bundle = json.loads(signed(key).line)
        change(bundle)
        signature = parse_signature(json.dumps(bundle).encode())
        with pytest.raises(UntrustedError, match="its signature is not valid"):
            verify(signature, manifest(digest="cd" * 32), trusted(key.with_suffix(".pub")))


def test_a_certificate_is_believed_while_it_is_valid(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    certificate = authority.issue(tmp_path, ALICE)
    signature = signed(certificate.with_suffix(".key"), certificate=certificate)
    for identity in ("", ALICE):
        verified = verify(signature, manifest(), trusted(authority.path, identity))
        assert verified.by == f"a certificate of {ALICE}"
        assert verified.until < 2e9
    with pytest.raises(UntrustedError, match=f"signed by a certificate of {ALICE}, whom"):
        verify(signature, manifest(), trusted(authority.path, "bob@example.org"))
    with pytest.raises(UntrustedError, match="of other files"):
        verify(signature, manifest("nlp/tiny@2.0.0"), trusted(authority.path))
    stranger = Authority(tmp_path, "stranger")
    with pytest.raises(UntrustedError, match="not valid: unable to get local issuer"):
        verify(signature, manifest(), trusted(stranger.path))


@pytest.mark.parametrize(
    ("start", "stop", "why"), [(-9, -2, "expired on"), (2, 9, "is not valid before")]
)
def test_a_certificate_is_not_believed_at_another_time(
    tmp_path: Path, start: int, stop: int, why: str
) -> None:
    """The library believes it: see its issue 663."""
    authority = Authority(tmp_path, "authority")
    certificate = authority.issue(tmp_path, ALICE, start, stop)
    with pytest.raises(UsageError, match=why):
        key_signer(certificate.with_suffix(".key"), no_password, certificate)
    key = certificate.with_suffix(".key")
    good = authority.issue(tmp_path, "good@example.org")
    bundle = json.loads(signed(good.with_suffix(".key"), certificate=good).line)
    own = json.loads(signed(key).line)
    der = load_pem_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.DER)
    chain = bundle["verificationMaterial"]["x509CertificateChain"]
    chain["certificates"] = [{"rawBytes": b64encode(der).decode()}]
    bundle["dsseEnvelope"] = own["dsseEnvelope"]
    signature = parse_signature(json.dumps(bundle).encode())
    with pytest.raises(UntrustedError, match=f"a certificate of its signature {why}"):
        verify(signature, manifest(), trusted(authority.path))


def test_the_password_of_a_key_is_asked_for(tmp_path: Path) -> None:
    key = key_pair(tmp_path, "secret", "sesame")
    signature = key_signer(key, lambda: b"sesame").sign(manifest())
    assert verify(signature, manifest(), trusted(key.with_suffix(".pub"))).by
    for wrong in (b"simsalabim", b""):
        with pytest.raises(UsageError, match="the password of the key is wrong"):
            key_signer(key, partial(bytes, wrong))


def test_files_that_are_no_keys_are_named(tmp_path: Path, key: Path) -> None:
    other = key_pair(tmp_path, "other")
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("hello")
    authority = Authority(tmp_path, "authority")
    certificate = authority.issue(tmp_path, ALICE)
    useless = authority.issue(tmp_path, "useless", signs=False)
    with pytest.raises(UsageError, match=r"not for signatures .*digitalSignature"):
        key_signer(useless.with_suffix(".key"), no_password, useless)
    with pytest.raises(UsageError, match="not a private key in PEM"):
        key_signer(rubbish, no_password)
    with pytest.raises(UsageError, match="not a private key in PEM"):
        key_signer(key.with_suffix(".pub"), no_password)
    with pytest.raises(UsageError, match="not that of the key"):
        key_signer(other, no_password, certificate)
    with pytest.raises(UsageError, match="not a certificate in PEM"):
        key_signer(key, no_password, rubbish)
    for path, why in ((rubbish, "neither a public key"), (tmp_path / "none", "No such file")):
        with pytest.raises(AxonError, match=why):
            check_signer(trusted(path))
    with pytest.raises(AxonError, match="has no identity"):
        check_signer(trusted(key.with_suffix(".pub"), ALICE))


def test_one_good_signature_of_each_group_is_enough(tmp_path: Path, key: Path) -> None:
    other = key_pair(tmp_path, "other")
    mine, theirs = (trusted(path.with_suffix(".pub")) for path in (key, other))
    both = b"\n".join([signed(other).line, signed(key).line])
    assert judge(both, manifest(), [(mine,)]).refusal is None
    assert judge(both, manifest(), [(theirs, mine)]).refusal is None
    assert judge(both, manifest(), [(theirs,), (mine,)]).refusal is None
    refused = judge(signed(other).line, manifest(), [(theirs,), (mine,)])
    assert "it has to be signed, and it is signed by key" in str(refused.refusal)
    assert "it has no signature" in str(judge(None, manifest(), [(mine,)]).refusal)
    assert "not a Sigstore bundle" in str(judge(b"<html>", manifest(), [(mine,)]).refusal)
    gone = judge(both, manifest(), [(trusted(tmp_path / "gone.pub"),)])
    assert "the file cannot be read: No such file or directory (from" in str(gone.refusal)
    changed = judge(both, manifest("nlp/tiny@2.0.0"), [(mine,)])
    assert "of other files, or of another version" in str(changed.refusal)


def test_offline_no_sigstore_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library has the keys of Sigstore, which verify what was signed while they were in use."""
    alice = Authority(tmp_path, "ca").issue(tmp_path, "alice@example.org")
    der = load_pem_x509_certificate(alice.read_bytes()).public_bytes(Encoding.DER)
    material = {"certificate": {"rawBytes": b64encode(der).decode()}, "tlogEntries": []}
    signature = parse_signature(bundle(manifest(), verificationMaterial=material))
    asked: list[object] = []

    def unknown(*host: object, **_: object) -> NoReturn:
        asked.append(host)
        raise OSError("there is no network")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    alice_at = TrustedSigner("https://accounts.example.org", "alice@example.org")
    with pytest.raises(UntrustedError, match="its signature is not valid"):
        verify(signature, manifest(), alice_at, offline=True)
    assert asked == []
