"""docs/sources.md on a real mount: a hub's models as directories, and commands on them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import MountFactory
from tests.support.hub import TOKEN, HubServer, Repo
from tests.support.registry import RegistryServer

pytestmark = pytest.mark.mount

FILES = {
    "config.json": b'{"model_type": "llama"}\n',
    "model.safetensors": bytes(range(256)) * 5000,
    "manifest.yaml": b"the repository's own\n",
    "onnx/model.onnx": b"onnx" * 100,
}
LARGE = frozenset({"model.safetensors"})


@pytest.fixture
def repo() -> Repo:
    return Repo.tagged(FILES, LARGE)


@pytest.fixture
def hub(repo: Repo) -> Iterator[HubServer]:
    plain = Repo("gpt2")
    plain.commit({"config.json": b"gpt2\n"})
    with HubServer(repo, plain) as server:
        yield server


@pytest.fixture
def env(hub: HubServer, tmp_path: Path) -> dict[str, str]:
    """A user's environment; the registry is not there."""
    home = tmp_path / "home"
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_TOKEN": "",
        "HF_TOKEN_PATH": "",
        "HF_HUB_CACHE": "",
        "AXONFS_CONFIG": str(tmp_path / "none.yaml"),
    }


@pytest.fixture
def models(start_mount: MountFactory, env: dict[str, str]) -> Path:
    return start_mount(env=env).path


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def axonfs(env: dict[str, str], tmp_path: Path) -> Command:
    def run(*args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "axonfs", *args],
            env={**os.environ, **env, "AXONFS_CACHE_DIR": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=60,
            check=check,
        )

    return run


def local(axonfs: Command) -> list[str]:
    """The specs of what is local."""
    listed = json.loads(axonfs("list", "--format", "json").stdout)
    return [f"{item['Namespace']}/{item['Name']}@{item['Version']}" for item in listed]


def test_a_revision_is_a_symlink_to_its_commit(models: Path, hub: HubServer, repo: Repo) -> None:
    model, main = models / "hf/acme/tiny", repo.branches["main"]
    assert os.readlink(model / "main") == main
    assert os.readlink(model / "latest") == main
    assert os.readlink(model / "v1.0") == repo.tags["v1.0"]
    assert sorted(os.listdir(model / "main")) == sorted(
        ["onnx", *FILES.keys() - {"onnx/model.onnx"}]
    )
    assert (model / "main/model.safetensors").stat().st_size == len(FILES["model.safetensors"])
    assert not hub.asked("/resolve/"), "listing and stat fetch no byte"
    for path, body in FILES.items():
        assert (model / "main" / path).read_bytes() == body
        assert (model / main / path).read_bytes() == body
    assert (model / "v1.0/config.json").read_bytes() == b"{}\n"
    assert not (model / "none").exists()
    assert not (models / "hf/acme/tiny/main/none").exists()
    assert sorted(os.listdir(model)) == sorted(["latest", "main", "v1.0", main, repo.tags["v1.0"]])


def test_a_model_without_an_organisation(models: Path) -> None:
    assert (models / "hf/gpt2/main/config.json").read_bytes() == b"gpt2\n"
    assert os.listdir(models / "hf") == ["gpt2"]


@pytest.mark.complains
def test_no_such_model(models: Path, hub: HubServer) -> None:
    """Without a token the hub does not say whether it is private, so EACCES; with one, ENOENT."""
    with pytest.raises(PermissionError):
        os.stat(models / "hf/acme/none")


def test_no_such_model_with_a_token(start_mount: MountFactory, env: dict[str, str]) -> None:
    mount = start_mount(env={**env, "HF_TOKEN": TOKEN})
    assert not (mount.path / "hf/acme/none").exists()
    assert not (mount.path / "hf/none/main").exists()


def test_only_what_is_known_is_listed(models: Path, hub: HubServer) -> None:
    """And nothing is sent for what is above the models."""
    assert os.listdir(models) == [".axonfs"]
    assert os.listdir(models / "hf") == []
    assert os.listdir(models / "hf/acme") == []
    assert hub.requests == []
    assert (models / "hf/acme/tiny/main/config.json").exists()
    assert os.listdir(models / "hf/acme") == ["tiny"]
    assert "hf" in os.listdir(models)


@pytest.mark.complains
def test_a_gated_model(models: Path, hub: HubServer, repo: Repo, start_mount: MountFactory) -> None:
    """EACCES, and the log says how to get access."""
    repo.gated = "manual"
    with pytest.raises(PermissionError) as caught:
        (models / "hf/acme/tiny/main/config.json").read_bytes()
    assert caught.value.errno == errno.EACCES
    log = (models.parent / "mount0.log").read_text()
    assert f"ask for access at {hub.url}/acme/tiny, then set HF_TOKEN" in log


@pytest.mark.complains
def test_the_token_of_a_command_beside_a_mount(
    hub: HubServer, repo: Repo, start_mount: MountFactory, env: dict[str, str]
) -> None:
    """It is used for what the command asks for, and for nothing else that the mount does."""
    repo.gated = "manual"
    mount = start_mount(env=env, options=("--prefetch", "off"))
    pin = [sys.executable, "-m", "axonfs", "pin", "hf/acme/tiny@v1.0", "--cache", str(mount.cache)]
    refused = subprocess.run(pin, env={**os.environ, **env}, capture_output=True, check=False)
    assert refused.returncode == 1
    asked = {**os.environ, **env, "HF_TOKEN": TOKEN}
    done = subprocess.run(pin, env=asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (mount.path / "hf/acme/tiny/v1.0/config.json").read_bytes() == b"{}\n"
    with pytest.raises(PermissionError):
        (mount.path / "hf/acme/tiny/main/config.json").read_bytes()
    for secret in (mount.log, mount.path / ".axonfs/status.json"):
        assert TOKEN not in secret.read_text()


def test_a_token_from_the_file_of_huggingface_hub(
    start_mount: MountFactory, env: dict[str, str], repo: Repo, hub: HubServer
) -> None:
    repo.gated = "auto"
    home = Path(env["HF_HOME"])
    home.mkdir()
    (home / "token").write_text(TOKEN + "\n")
    mount = start_mount(env=env)
    assert (mount.path / "hf/acme/tiny/main/config.json").read_bytes() == FILES["config.json"]
    assert TOKEN not in mount.log.read_text()
    assert all("authorization" not in r.headers for r in hub.asked(origin="storage"))


def test_beside_a_registry(
    start_mount: MountFactory, env: dict[str, str], registry: RegistryServer, hub: HubServer
) -> None:
    """The registry is never asked for what is the hub's, nor the hub for what is not."""
    mount = start_mount(registry.url, env=env)
    assert (mount.path / "nlp/tiny/1.0.0/vocab.txt").stat().st_size == 777
    assert hub.requests == []
    assert (mount.path / "hf/acme/tiny/main/config.json").read_bytes() == FILES["config.json"]
    assert not [path for path in registry.paths() if "acme" in path or "/hf/" in path]


def test_sources_none(
    start_mount: MountFactory, env: dict[str, str], registry: RegistryServer, hub: HubServer
) -> None:
    mount = start_mount(registry.url, env={**env, "AXONFS_SOURCES": "none"})
    assert not (mount.path / "hf/acme/tiny/main").exists()
    assert hub.requests == []


@pytest.mark.complains
def test_pinned_models_are_there_offline(
    axonfs: Command, start_mount: MountFactory, env: dict[str, str], hub: HubServer, repo: Repo
) -> None:
    main = repo.branches["main"]
    out = axonfs("pin", "hf/acme/tiny@main").stdout
    assert f"hf/acme/tiny@{main} is pinned: {len(FILES)} files" in out
    for spec in ((), ("hf/acme/tiny@main",), ("hf/acme/tiny",), (f"hf/acme/tiny@{main}",)):
        assert "is complete" in axonfs("pin", "--check", *spec).stdout
    assert local(axonfs) == [f"hf/acme/tiny@{main}"]
    assert "0 bad" in axonfs("verify", "hf/acme/tiny@main").stdout
    asked = len(hub.requests)
    mount = start_mount(env=env, options=("--offline",))
    for path, body in FILES.items():
        assert (mount.path / "hf/acme/tiny/main" / path).read_bytes() == body
    assert os.listdir(mount.path / "hf/acme") == ["tiny"]
    with pytest.raises(OSError, match="unreachable"):
        os.stat(mount.path / "hf/acme/tiny/v1.0/config.json")
    assert len(hub.requests) == asked


def test_update_follows_the_branch(axonfs: Command, hub: HubServer, repo: Repo) -> None:
    old = repo.branches["main"]
    axonfs("pin", "hf/acme/tiny")
    new = repo.commit({"config.json": b"{ }\n"})
    assert f"hf/acme/tiny: {old} → {new}" in axonfs("update").stdout
    pinned = local(axonfs)
    assert set(pinned) == {f"hf/acme/tiny@{old}", f"hf/acme/tiny@{new}"}
    axonfs("uninstall", f"hf/acme/tiny@{old}")
    assert local(axonfs) == [f"hf/acme/tiny@{new}"]
    axonfs("uninstall", "hf/acme/tiny@main")
    assert local(axonfs) == []


def test_an_update_moves_the_symlink_at_once(
    models: Path, axonfs: Command, hub: HubServer, repo: Repo
) -> None:
    """Although the kernel may keep what it was told of `main` for a while."""
    axonfs("pin", "hf/acme/tiny")
    assert os.readlink(models / "hf/acme/tiny/main") == repo.branches["main"]
    new = repo.commit({"config.json": b"{ }\n"})
    axonfs("update")
    for name in ("main", "latest"):
        assert os.readlink(models / "hf/acme/tiny" / name) == new
    assert (models / "hf/acme/tiny/main/config.json").read_bytes() == b"{ }\n"


def test_a_refused_pin_is_not_said_to_be_one(axonfs: Command, hub: HubServer, repo: Repo) -> None:
    repo.gated = "manual"
    assert (
        "a mount reads it when it starts, and a log-in at axonfs restart"
        in axonfs("pin", "hf/acme/tiny", check=False).stderr
    )
    assert "pinned:" not in axonfs("info", "hf/acme/tiny").stdout  # nothing of it came
    assert "nothing is pinned" in axonfs("pin", "--check", check=False).stderr


def test_a_name_without_its_hub(axonfs: Command) -> None:
    """What a user types who knows the model's id."""
    told = axonfs("info", "acme/tiny", check=False).stderr
    assert "on the Hugging Face Hub it is hf/acme/tiny" in told
    told = axonfs("info", "hf/acme/tyni", check=False).stderr
    assert told.startswith("axonfs: hf/acme/tyni: no such model, or it is private")


def test_info_versions_and_search(axonfs: Command, hub: HubServer, repo: Repo) -> None:
    text = axonfs("info", "hf/acme/tiny", "--files").stdout
    for word in ("apache-2.0", "1234567", "gated", "transformers", "model.safetensors"):
        assert word in text
    found = json.loads(axonfs("info", "hf/acme/tiny", "--json").stdout)
    assert found["facts"]["downloads"] == 1234567
    assert found["size"] == sum(map(len, FILES.values()))
    by_path = {item["path"]: item for item in found["files"]}
    assert by_path["config.json"]["git"]
    assert "sha256" not in by_path["config.json"]
    assert by_path["model.safetensors"]["sha256"]
    listed = axonfs("versions", "hf/acme/tiny").stdout
    assert all(word in listed for word in ("latest, main", "v1.0", repo.branches["main"]))
    sent = len(hub.requests)
    assert "tiny" not in axonfs("search", "tiny").stdout
    assert len(hub.requests) == sent
    assert "hf/acme/tiny@main" in axonfs("search", "--source", "hf", "tiny").stdout
    assert not hub.asked("/resolve/")


def test_the_extended_attributes_say_what_a_file_is(models: Path, repo: Repo) -> None:
    model = models / "hf/acme/tiny/main"
    small, large = model / "config.json", model / "model.safetensors"
    assert os.getxattr(large, "user.axonfs.sha256")
    assert "user.axonfs.sha256" not in os.listxattr(small)
    assert len(os.getxattr(small, "user.axonfs.git")) == 40
    source = os.getxattr(small, "user.axonfs.source").decode()
    assert source == f"hf://acme/tiny@{repo.branches['main']}/"


def test_copies_are_the_same(models: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-rL", models / "hf/acme/tiny/main", copy], check=True)
    for path, body in FILES.items():
        assert (copy / path).read_bytes() == body
