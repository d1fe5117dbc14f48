"""docs/semantics.md on signatures: versions that have to be signed, in real mounts."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from axonfs.formats.layout import manifest_key, signatures_key
from axonfs.names import parse_spec
from axonfs.publish.registry import Registry
from axonfs.publish.signatures import sign
from axonfs.signatures.signing import key_signer
from axonfs.storage import Directory
from tests.mount.conftest import (
    FILES,
    NAME,
    Mount,
    MountFactory,
    object_requests,
    run_axonfs,
    source_bytes,
)
from tests.support.registry import RegistryServer
from tests.support.signing import Authority, key_pair, no_password

pytestmark = pytest.mark.mount
ONE, TWO, DEEP = "nlp/tiny@1.0.0", "nlp/tiny@1.1.0", "nlp/org/deep@0.1.0"
ALICE = "alice@example.org"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return key_pair(tmp_path / "keys", "team")


@pytest.fixture
def signed(registry_dir: Path, key: Path) -> Callable[..., None]:
    """A function that signs versions in the registry."""

    def add(*specs: str, by: Path = key, certificate: Path | None = None) -> None:
        registry = Registry(Directory(registry_dir))
        signer = key_signer(by, no_password, certificate)
        for spec in specs:
            sign(registry, registry.published(parse_spec(spec)), signer)

    return add


@pytest.fixture
def config(tmp_path: Path, registry_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's config file, which mounts and commands of the test read."""
    path = tmp_path / "config.yaml"
    monkeypatch.setenv("AXONFS_CONFIG", str(path))
    return path


def write(config: Path, *rules: Path | str, **settings: object) -> dict[str, str]:
    """Write the config file; return the variables that a mount needs for it."""
    config.write_text(yaml.safe_dump({"require_signature": [*map(str, rules)], **settings}))
    return {"AXONFS_CONFIG": str(config)}


def file_of(mount: Mount, spec: str, name: str = NAME) -> Path:
    return mount.path.joinpath(*parse_spec(spec).segments, name)


def refused(read: Callable[..., object], *args: object) -> bool:
    """Whether it is refused with EPERM; any other error is raised."""
    try:
        read(*args)
    except OSError as exc:
        if exc.errno != errno.EPERM:
            raise
        return True
    return False


@pytest.mark.complains
def test_unsigned(
    config: Path,
    registry: RegistryServer,
    start_mount: MountFactory,
    signed: Callable[..., None],
    key: Path,
    tmp_path: Path,
) -> None:
    """A version that has to be signed, and is not by a signer whom `require_signature` names, gives
    EPERM for each of its files and its listing, before a byte of it is requested; the log, `status`
    and `info` say why."""
    other = key_pair(tmp_path / "keys", "other")
    signed(ONE)
    signed(TWO, by=other)
    mount = start_mount(registry.url, env=write(config, key.with_suffix(".pub")))
    assert sorted(os.listdir(mount.path / "nlp/tiny")) == ["1.0.0", "1.1.0", "latest"]
    for spec, why in ((TWO, "it is signed by key sha256:"), (DEEP, "it has no signature")):
        for name in (*FILES, "manifest.yaml"):
            assert refused(file_of(mount, spec, name).stat)
            assert refused(file_of(mount, spec, name).read_bytes)
        assert refused(os.listdir, file_of(mount, spec).parent)
        assert f"{spec}: it has to be signed, and {why}" in mount.log.read_text()
        assert any(why in item["message"] for item in mount.status()["failures"])
        done = run_axonfs("pin", spec, "--cache", mount.cache, check=False)
        assert (done.returncode, why in done.stderr) == (1, True)
    assert object_requests(registry) == []
    assert file_of(mount, ONE).read_bytes() == source_bytes(tmp_path, 0, NAME)
    assert "trusted" in run_axonfs("info", ONE, "--cache", mount.cache).stdout
    info = json.loads(run_axonfs("info", TWO, "--json", "--cache", mount.cache).stdout)
    assert [item["trusted"] for item in info["signatures"]] == [False]
    info = run_axonfs("info", DEEP, "--cache", mount.cache).stdout
    assert "by nobody, so it may not be read" in info


@pytest.mark.complains
def test_forged(
    config: Path,
    registry_dir: Path,
    registry: RegistryServer,
    start_mount: MountFactory,
    signed: Callable[..., None],
    key: Path,
) -> None:
    """A signature of another version, a changed one, a changed manifest and what is no signature
    are refused in the same way, and the message says which it is."""
    signed(ONE, TWO)
    versions = registry_dir / "api/v1/models/nlp/tiny"
    good = (registry_dir / signatures_key(parse_spec(TWO))).read_bytes()
    manifest = (registry_dir / manifest_key(parse_spec(ONE))).read_text()
    digest = yaml.safe_load(manifest)["spec"]["format"]["files"][0]["sha256"]
    forged = {
        "2.0.0": (good, "of other files, or of another version or manifest"),
        "2.1.0": (good.replace(b'"sig":"ME', b'"sig":"MF'), "is not valid: it was changed"),
        "2.2.0": (b"<!doctype html>\n", "not a Sigstore bundle"),
        "2.3.0": (b"[" * (2 << 20), "signatures are refused"),
        "2.4.0": (b"{" * 5000, "too many parts"),
    }
    for version, (signatures, _) in forged.items():
        (versions / version).mkdir()
        made = manifest.replace("version: 1.0.0", f"version: {version}")
        (versions / version / "manifest.yaml").write_text(made)
        (versions / version / "signatures.jsonl").write_bytes(signatures)
    changed = (versions / "1.0.0/manifest.yaml", manifest.replace(digest, "ab" * 32))
    changed[0].write_text(changed[1])
    mount = start_mount(registry.url, env=write(config, key.with_suffix(".pub")))
    assert file_of(mount, TWO).stat().st_size == FILES[NAME]
    forged["1.0.0"] = (b"", "of other files, or of another version or manifest")
    for version, (_, why) in forged.items():
        assert refused(file_of(mount, f"nlp/tiny@{version}").read_bytes), version
        log = [line for line in mount.log.read_text().splitlines() if f"@{version}: it" in line]
        assert len(log) == 1, mount.log.read_text()[100:500]
        assert why in log[0]
    assert object_requests(registry) == []


@pytest.mark.complains
def test_applied(
    config: Path,
    registry: RegistryServer,
    start_mount: MountFactory,
    signed: Callable[..., None],
    key: Path,
    tmp_path: Path,
) -> None:
    """A changed `require_signature` applies at once, also to files that are whole in the cache; a
    file that is open stays readable."""
    certificate = (authority := Authority(tmp_path / "keys", "authority")).issue(tmp_path, ALICE)
    signed(ONE)
    signed(TWO, by=certificate.with_suffix(".key"), certificate=certificate)
    env = write(config, registries=[registry.url], sources="none")
    mount = start_mount(env=env)
    for number, spec in enumerate((ONE, TWO)):
        assert file_of(mount, spec).read_bytes() == source_bytes(tmp_path, number, NAME)

    def require(*rules: str | Path) -> None:
        done = run_axonfs("config", "set", "require_signature", *rules)
        assert f"applies now to the mount at {mount.path}" in done.stderr

    with file_of(mount, TWO).open("rb", buffering=0) as before:
        require(key.with_suffix(".pub"))
        assert refused(file_of(mount, TWO).read_bytes)
        assert before.read(10) == source_bytes(tmp_path, 1, NAME)[:10]
    assert file_of(mount, ONE).read_bytes() == source_bytes(tmp_path, 0, NAME)
    require(f"{ALICE},{authority.path}")
    assert refused(file_of(mount, ONE).read_bytes)
    assert file_of(mount, TWO).read_bytes() == source_bytes(tmp_path, 1, NAME)
    require(f"bob@example.org,{authority.path}", f"nlp/tiny={key.with_suffix('.pub')}")
    assert refused(file_of(mount, TWO).read_bytes)
    assert refused(file_of(mount, DEEP).read_bytes)
    assert file_of(mount, ONE).read_bytes() == source_bytes(tmp_path, 0, NAME)
    require(f"{registry.url}=none", authority.path)
    assert file_of(mount, DEEP).read_bytes() == source_bytes(tmp_path, 2, NAME)
    done = run_axonfs("config", "set", "require_signature", tmp_path / "none.pub", check=False)
    assert (done.returncode, "No such file or directory" in done.stderr) == (1, True)


@pytest.mark.complains
def test_kept(
    config: Path,
    registry_dir: Path,
    start_mount: MountFactory,
    signed: Callable[..., None],
    key: Path,
    tmp_path: Path,
) -> None:
    """The cache keeps the signatures of versions that were pinned or accepted: without the
    registry, and by a worker that takes over, these are read, and no others."""
    signed(ONE, TWO, DEEP)
    rule = key.with_suffix(".pub")
    with RegistryServer(registry_dir) as server:
        options = ("--cache", tmp_path / "cache", "--registry", server.url)
        write(config)
        run_axonfs("pin", ONE, *options)
        run_axonfs("info", DEEP, *options)
        mount = start_mount(server.url, env=write(config, rule))
        assert file_of(mount, TWO).read_bytes() == source_bytes(tmp_path, 1, NAME)
        asked = len(server.requests)
        with file_of(mount, TWO).open("rb") as before:
            mount.kill_worker()
            assert file_of(mount, TWO).read_bytes() == source_bytes(tmp_path, 1, NAME)
            assert before.read() == source_bytes(tmp_path, 1, NAME)
        assert not any("signatures" in path for _, path, _ in server.requests[asked:])
        mount.stop()
    mount = start_mount(server.url, options=("--offline",), env=write(config, rule))
    assert file_of(mount, ONE).read_bytes() == source_bytes(tmp_path, 0, NAME)
    assert file_of(mount, TWO).read_bytes() == source_bytes(tmp_path, 1, NAME)
    assert refused(os.listdir, file_of(mount, DEEP).parent)
    assert "the cache has no signature of it" in mount.log.read_text()
    assert run_axonfs("pin", "--check", "--cache", mount.cache).returncode == 0
    assert run_axonfs("verify", ONE, "--cache", mount.cache).returncode == 0
    run_axonfs("path", ONE, "--cache", mount.cache)
    mount.stop()
    other = key_pair(tmp_path / "keys", "other").with_suffix(".pub")
    write(config, other, offline=True)
    for command in (("pin", "--check"), ("verify", ONE), ("path", ONE)):
        done = run_axonfs(*command, "--cache", mount.cache, check=False)
        assert done.returncode == 1, command
        assert "it is signed by key sha256:" in done.stdout + done.stderr


def test_without_the_setting_nothing_is_asked_or_imported(
    registry: RegistryServer, start_mount: MountFactory, tmp_path: Path
) -> None:
    mount = start_mount(registry.url)
    assert file_of(mount, ONE).read_bytes() == source_bytes(tmp_path, 0, NAME)
    assert not any("signatures" in path for path in registry.paths())
    mapped = Path(f"/proc/{mount.worker()}/maps").read_text()
    assert "cryptography" not in mapped
    assert "pydantic" not in mapped
