"""Signatures in a registry: made by publish and sign, and part of a version's life there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from axonfs.errors import AxonError
from axonfs.formats.layout import manifest_key, signatures_key
from axonfs.formats.manifest import parse_manifest
from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.publish.signatures import checked
from axonfs.settings.signers import TrustedSigner
from axonfs.signatures import parse_signatures
from axonfs.signatures.signing import key_signer
from axonfs.signatures.verdict import judge
from axonfs.storage import Directory
from axonfs.storage.storage import Content
from tests.support.commands import Run
from tests.support.registry import SPEC, RegistryServer, make_model, published
from tests.support.signing import Authority, key_pair, no_password

OTHER = "nlp/tiny@2.0.0"
SIZES = {"a.bin": 3000, "sub/b.bin": 50}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for name in ("team", "other"):
        key_pair(tmp_path / "keys", name)
    return tmp_path / "keys"


@pytest.fixture
def registry(run: Run, keys: Path, tmp_path: Path) -> Path:
    """A registry with one signed version."""
    model = make_model(tmp_path / "models/nlp/tiny/1.0.0", SIZES)
    done = run(
        "publish", model, SPEC, "--to", tmp_path / "registry", "--sign-key", keys / "team.key"
    )
    assert (done.code, done.err) == (0, "")
    return tmp_path / "registry"


def file_of(registry: Path, spec: str = SPEC) -> Path:
    return registry / signatures_key(parse_spec(spec))


def signers(registry: Path, *publics: Path, spec: str = SPEC) -> list[bool]:
    """Whether each of these has signed the version."""
    manifest = parse_manifest((registry / manifest_key(parse_spec(spec))).read_bytes())
    path = file_of(registry, spec)
    body = path.read_bytes() if path.exists() else None
    return [
        judge(body, manifest, [(TrustedSigner(str(public)),)]).refusal is None for public in publics
    ]


def model_signing(*line: str | Path) -> subprocess.CompletedProcess[str]:
    """The program of the project whose library we use."""
    program = Path(sys.executable).with_name("model_signing")
    return subprocess.run([program, *line], check=False, capture_output=True, text=True)


def test_the_signature_is_there_before_the_version(keys: Path, tmp_path: Path) -> None:
    seen: list[bool] = []

    class Watched(Directory):
        def replace(self, key: str, body: bytes, before: Content | None) -> bool:
            if key == manifest_key(parse_spec(SPEC)):
                seen.append(file_of(self.root).exists())
            return super().replace(key, body, before)

    signer = key_signer(keys / "team.key", no_password)
    model = make_model(tmp_path / "model", SIZES)
    publish(model, parse_spec(SPEC), Watched(tmp_path / "registry"), signer=signer)
    assert seen == [True]
    assert signers(tmp_path / "registry", keys / "team.pub") == [True]


def test_the_projects_own_program_accepts_it(registry: Path, keys: Path, tmp_path: Path) -> None:
    """With the manifest, as a mount and `axonfs path` show it, nothing has to be ignored."""
    model = tmp_path / "models/nlp/tiny/1.0.0"
    (model / "manifest.yaml").write_bytes((registry / manifest_key(parse_spec(SPEC))).read_bytes())
    to = ("--signature", file_of(registry), "--public_key", keys / "team.pub")
    assert model_signing("verify", "key", model, *to).returncode == 0
    (model / "a.bin").write_bytes(b"else")
    done = model_signing("verify", "key", model, *to)
    assert (done.returncode, "Hash mismatch for" in done.stderr) == (1, True)


def test_a_version_is_signed_after_it_was_published(
    run: Run, registry: Path, keys: Path, tmp_path: Path
) -> None:
    team, other = keys / "team.pub", keys / "other.pub"
    published(tmp_path, SIZES, spec=OTHER, seed=1)
    assert signers(registry, team, spec=OTHER) == [False]
    line = ("registry", "sign", OTHER, "--to", registry)
    done = run(*line, "--sign-key", keys / "team.key")
    assert (done.code, done.out.startswith(f"{OTHER} is signed: manifest sha256:")) == (0, True)
    run(*line, "--sign-key", keys / "other.key")
    run(*line, "--sign-key", keys / "other.key")
    assert signers(registry, team, other, spec=OTHER) == [True, True]
    assert len(parse_signatures(file_of(registry, OTHER).read_bytes())) == 2
    again = tmp_path / "models/nlp/tiny/1.0.0"
    run("publish", again, SPEC, "--to", registry, "--sign-key", keys / "other.key")
    assert signers(registry, team, other) == [True, True]


def test_a_signature_of_the_projects_own_program_is_added(
    run: Run, registry: Path, keys: Path, tmp_path: Path
) -> None:
    model, bundle = tmp_path / "models/nlp/tiny/1.0.0", tmp_path / "model.sig"
    signing = ("sign", "key", model, "--signature", bundle, "--private_key", keys / "other.key")
    line = ("registry", "sign", SPEC, "--to", registry, "--signature", bundle)
    assert model_signing(*signing).returncode == 0
    done = run(*line)
    assert done.code == 2
    assert "not of this version: it differs in 'manifest.yaml'" in done.err
    (model / "manifest.yaml").write_bytes((registry / manifest_key(parse_spec(SPEC))).read_bytes())
    assert model_signing(*signing).returncode == 0
    assert run(*line).code == 0
    assert signers(registry, keys / "other.pub", keys / "team.pub") == [True, True]


def test_a_certificate_and_a_password(
    run: Run, registry: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(keys, "authority")
    certificate = authority.issue(keys, "alice@example.org")
    line = ("registry", "sign", SPEC, "--to", registry)
    key = certificate.with_suffix(".key")
    assert run(*line, "--sign-key", key, "--sign-cert", certificate).code == 0
    secret = key_pair(keys, "secret", "sesame")
    done = run(*line, "--sign-key", secret)
    assert (done.code, "set AXONFS_SIGN_PASSWORD" in done.err) == (2, True)
    (keys / "password").write_text("sesame\n")
    assert run(*line, "--sign-key", secret, "--sign-password-file", keys / "password").code == 0
    monkeypatch.setenv("AXONFS_SIGN_PASSWORD", "wrong")
    done = run(*line, "--sign-key", secret)
    assert (done.code, "the password of the key is wrong" in done.err) == (2, True)
    assert signers(registry, authority.path, keys / "secret.pub", keys / "team.pub") == [True] * 3


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--sign-cert", "team.pub"), "add --sign-key FILE"),
        (("--sign-key", "team.key", "--sign-chain", "team.pub"), "add --sign-cert FILE"),
        (("--sign-key", "team.key", "--sign-keyless"), "exclude each other"),
        (("--sign-key", "team.pub"), "not a private key in PEM"),
        ((), "give --sign-key"),
    ],
)
def test_options_that_contradict_each_other_sign_nothing(
    run: Run, registry: Path, keys: Path, options: tuple[str, ...], why: str
) -> None:
    before = file_of(registry).read_bytes()
    given = [keys / option if "." in option else option for option in options]
    done = run("registry", "sign", SPEC, "--to", registry, *given)
    assert (done.code, why in done.err) == (2, True), done.err
    assert file_of(registry).read_bytes() == before


def test_a_copy_carries_signatures_and_adds_those_that_lack(
    run: Run, registry: Path, keys: Path, tmp_path: Path
) -> None:
    team, other = keys / "team.pub", keys / "other.pub"
    target = tmp_path / "target"
    with RegistryServer(registry) as server:
        assert run("registry", "copy", server.url, target).code == 0
        assert signers(target, team) == [True]
        run("registry", "sign", SPEC, "--to", target, "--sign-key", keys / "other.key")
        file_of(registry).unlink()
        run("registry", "sign", SPEC, "--to", registry, "--sign-key", keys / "team.key")
        assert run("registry", "copy", server.url, target).code == 0
    assert signers(target, team, other) == [True, True]


def test_signatures_of_something_else_are_a_fault_that_is_repaired(
    run: Run, registry: Path, keys: Path, tmp_path: Path
) -> None:
    backup = shutil.copytree(registry, tmp_path / "backup")
    published(tmp_path, SIZES, spec=OTHER, seed=1)
    for wrong, why in (
        (file_of(backup).read_bytes(), f"{OTHER}: it has a signature of another version"),
        (b"<html>\n", f"{OTHER}: its signatures are refused: a signature is not a Sigstore"),
        (b"x" * (4 << 20), f"{OTHER}: "),
    ):
        file_of(registry, OTHER).write_bytes(wrong)
        done = run("registry", "check", registry)
        assert (done.code, why in done.out) == (1, True), done.out
        assert done.out.endswith(": 1 fault\n")
        done = run("registry", "copy", registry, tmp_path / "elsewhere", OTHER)
        assert (done.code, "nlp/tiny@2.0.0: " in done.err) == (1, True)
        assert run("registry", "check", registry, "--repair", backup).code == 0
        assert run("registry", "check", registry).code == 0
    file_of(registry).write_bytes(b"\n".join([b"rubbish", file_of(backup).read_bytes()]))
    assert run("registry", "check", registry, "--repair", backup).code == 0
    assert signers(registry, keys / "team.pub") == [True]


def test_a_version_that_lacks_the_required_signature_is_a_fault(
    run: Run, registry: Path, keys: Path, tmp_path: Path
) -> None:
    backup = shutil.copytree(registry, tmp_path / "backup")
    run("config", "set", "require_signature", f"{registry}={keys / 'team.pub'}")
    assert run("registry", "check", registry).code == 0
    file_of(registry).unlink()
    done = run("registry", "check", registry)
    assert done.code == 1
    assert done.out.startswith(f"{SPEC}: it has to be signed, and it has no signature")
    assert run("registry", "check", registry, "--repair", backup).code == 0
    assert signers(registry, keys / "team.pub") == [True]


def test_a_signature_goes_with_its_version(run: Run, registry: Path, tmp_path: Path) -> None:
    run("registry", "remove-version", SPEC, "--from", registry, "--yes")
    assert not file_of(registry).exists()
    assert not file_of(registry).parent.exists(), "no empty directory stays"
    file_of(registry).parent.mkdir()
    file_of(registry).write_bytes(b"of a publish that was killed\n")
    assert run("registry", "gc", registry).out.startswith("0 B freed")
    then = time.time() - 25 * 3600
    os.utime(file_of(registry), (then, then))
    done = json.loads(run("registry", "gc", registry, "--json").out)
    assert done["signatures"] == 1
    assert not file_of(registry).exists()


def test_gc_keeps_the_signatures_of_versions(run: Run, registry: Path, keys: Path) -> None:
    then = time.time() - 25 * 3600
    os.utime(file_of(registry), (then, then))
    assert json.loads(run("registry", "gc", registry, "--json").out)["signatures"] == 0
    assert signers(registry, keys / "team.pub") == [True]


def test_what_a_dead_publisher_left_does_not_harm_the_next(
    run: Run, registry: Path, keys: Path, tmp_path: Path
) -> None:
    """A signature of a manifest that never came, and then other files under that name."""
    other = make_model(tmp_path / "else", SIZES, seed=7)
    file_of(registry, OTHER).parent.mkdir(parents=True)
    shutil.copy(file_of(registry), file_of(registry, OTHER))
    run("publish", other, OTHER, "--to", registry, "--sign-key", keys / "other.key")
    assert signers(registry, keys / "other.pub", spec=OTHER) == [True]
    manifest = parse_manifest((registry / manifest_key(parse_spec(OTHER))).read_bytes())
    assert len(checked(file_of(registry, OTHER).read_bytes(), manifest)) == 1


@pytest.mark.parametrize("name", ["team", "other"])
def test_who_is_too_late_drops_no_signature(keys: Path, tmp_path: Path, name: str) -> None:
    """While one publisher signs, another one publishes the version with other files."""
    models = [make_model(tmp_path / f"model{seed}", SIZES, seed=seed) for seed in (1, 2)]
    first, second = (key_signer(keys / f"{one}.key", no_password) for one in ("team", name))

    class Overtaken(Directory):
        def replace(self, key: str, body: bytes, before: Content | None) -> bool:
            if key == signatures_key(parse_spec(SPEC)) and before is None:
                publish(models[1], parse_spec(SPEC), Directory(self.root), signer=second)
            return super().replace(key, body, before)

    with pytest.raises(AxonError, match="already published with other files"):
        publish(models[0], parse_spec(SPEC), Overtaken(tmp_path / "registry"), signer=first)
    assert signers(tmp_path / "registry", keys / f"{name}.pub") == [True]


def test_who_signs_last_takes_no_signature_of_who_enters_first(keys: Path, tmp_path: Path) -> None:
    models = [make_model(tmp_path / f"model{seed}", SIZES, seed=seed) for seed in (1, 2)]
    signer = key_signer(keys / "team.key", no_password)

    class Killed(Directory):
        def replace(self, key: str, body: bytes, before: Content | None) -> bool:
            if key == manifest_key(parse_spec(SPEC)):
                raise AxonError("killed")
            return super().replace(key, body, before)

    class Overtaken(Directory):
        def replace(self, key: str, body: bytes, before: Content | None) -> bool:
            if key != manifest_key(parse_spec(SPEC)):
                return super().replace(key, body, before)
            with pytest.raises(AxonError, match="killed"):
                publish(models[1], parse_spec(SPEC), Killed(self.root), signer=signer)
            done = super().replace(key, body, before)
            assert signers(self.root, keys / "team.pub") == [True]
            return done

    publish(models[0], parse_spec(SPEC), Overtaken(tmp_path / "registry"), signer=signer)
    manifest = parse_manifest((tmp_path / "registry" / manifest_key(parse_spec(SPEC))).read_bytes())
    assert len(checked(file_of(tmp_path / "registry").read_bytes(), manifest)) == 1


def test_a_bucket_has_signatures_too(run: Run, keys: Path, tmp_path: Path, bucket_url: str) -> None:
    model = make_model(tmp_path / "model", SIZES)
    run("publish", model, SPEC, "--to", bucket_url)
    for name in ("team", "other"):
        done = run("registry", "sign", SPEC, "--to", bucket_url, "--sign-key", keys / f"{name}.key")
        assert done.code == 0, done.err
    assert run("registry", "copy", bucket_url, tmp_path / "here").code == 0
    assert signers(tmp_path / "here", keys / "team.pub", keys / "other.pub") == [True, True]
