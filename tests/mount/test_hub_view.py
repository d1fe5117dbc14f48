"""docs/semantics.md, "Models by id": `.hub` on real mounts, beside a hub and a registry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.mount.conftest import Mount, MountFactory, run_axonfs, settled
from tests.support.hub import HubServer, Repo, sha256
from tests.support.olah import hub_python
from tests.support.registry import RegistryServer

pytestmark = pytest.mark.mount

WEIGHTS = bytes(range(256)) * 5000
FILES = {
    "config.json": b'{"model_type": "llama"}\n',
    "model.safetensors": WEIGHTS,
    "onnx/model.onnx": b"onnx" * 100,
}
LARGE = frozenset({"model.safetensors"})


@pytest.fixture
def repo() -> Repo:
    made = Repo.tagged(FILES, LARGE)
    made.branches["feature/x"] = made.tags["v1.0"]
    return made


@pytest.fixture
def hub(repo: Repo) -> Iterator[HubServer]:
    plain = Repo("gpt2")
    plain.commit({"config.json": b"gpt2\n"})
    taken = Repo("nlp/other")
    taken.commit({"config.json": b"not the registry's\n"})
    gated = Repo("acme/gated", gated="manual")
    gated.commit({"config.json": b"{}\n"})
    with HubServer(repo, plain, taken, gated) as server:
        yield server


@pytest.fixture
def env(hub: HubServer, tmp_path: Path) -> dict[str, str]:
    """The environment of the mount."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": "",
        "HF_TOKEN_PATH": "",
        "HF_HUB_CACHE": "",
        "AXONFS_CONFIG": str(tmp_path / "none.yaml"),
    }


@pytest.fixture
def both(start_mount: MountFactory, registry: RegistryServer, env: dict[str, str]) -> Mount:
    """A mount of the hub and of the registry."""
    return start_mount(registry.url, env=env, options=("--prefetch", "off"))


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def lists(directory: Path, wanted: set[str]) -> bool:
    return wanted <= set(names(directory))


def read_as(client: Path, mount: Mount, program: str, **environment: str) -> object:
    """What a program of the Hub's own client prints as JSON, with `.hub` as its cache."""
    done = subprocess.run(
        [str(client), "-c", program],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(mount.cache),
            "HF_HUB_CACHE": str(mount.path / ".hub"),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_model_of_the_hub(both: Mount, hub: HubServer, repo: Repo) -> None:
    """`.hub` has each model by its id, as a cache of the Hugging Face Hub does; a file of a
    snapshot is the same file, with the same inode, as in its version's directory."""
    view, main = both.path / ".hub", repo.branches["main"]
    model = view / "models--acme--tiny"
    assert names(model) == ["blobs", "refs", "snapshots"]
    assert (model / "refs/main").read_text() == main
    snapshot = model / "snapshots" / main
    assert names(snapshot) == ["config.json", "model.safetensors", "onnx"]
    assert (snapshot / "model.safetensors").stat().st_size == len(WEIGHTS)
    assert not hub.asked("/resolve/"), "metadata fetches no byte"
    for path, body in FILES.items():
        assert (snapshot / path).read_bytes() == body
        same = (both.path / "hf/acme/tiny/main" / path).stat()
        assert os.path.samestat((snapshot / path).stat(), same)
    assert (view / "models--gpt2/refs/main").read_text() == hub.repos["gpt2"].branches["main"]
    for name in ("models--a--b--c", "datasets--acme--tiny", "models--", "version.txt"):
        assert not os.path.exists(view / name)


def test_revisions(both: Mount, repo: Repo, hub: HubServer) -> None:
    """`refs/main` has the commit of the default branch or latest version; other branches, tags,
    versions and commits are found by name, and listed once they are local."""
    model, old = both.path / ".hub/models--acme--tiny", repo.tags["v1.0"]
    assert names(model / "refs") == ["main"]
    for revision in ("v1.0", "feature/x", old):
        assert (model / "refs" / revision).read_text() == old
        assert names(model / "snapshots") == sorted({old, repo.branches["main"]})
    assert names(model / "refs") == ["feature", "main", "v1.0"]
    assert names(model / "refs/feature") == ["x"]
    assert (model / "snapshots" / old / "config.json").read_bytes() == b"{}\n"
    assert not (model / "refs/none").exists()
    assert not (model / "refs/refs/pr/1").exists()
    assert not (model / "snapshots" / ("0" * 40)).exists()
    before = len(hub.requests)
    for path in (model, model / "refs/main", model / "refs/v1.0", model / "snapshots" / old):
        path.stat()
    assert len(hub.requests) == before, "what is known is not asked for again"


def test_a_model_of_a_registry(both: Mount, hub: HubServer) -> None:
    """A model of a registry is there by its name, with commits that are made of its manifests; an
    id whose namespace a registry has is never looked up on the Hub."""
    model = both.path / ".hub/models--nlp--tiny"
    latest = sha256((both.path / "nlp/tiny/1.1.0/manifest.yaml").read_bytes())[:40]
    old = sha256((both.path / "nlp/tiny/1.0.0/manifest.yaml").read_bytes())[:40]
    assert (model / "refs/main").read_text() == (model / "refs/1.1.0").read_text() == latest
    assert (model / "snapshots" / old / "vocab.txt").stat().st_size == 777
    assert names(model / "snapshots") == sorted([latest, old])
    assert names(model / "refs") == ["1.0.0", "1.1.0", "main"]
    assert "manifest.yaml" not in names(model / "snapshots" / latest)
    assert not (model / "refs/2.0.0").exists()
    assert not (both.path / ".hub/models--nlp--other").exists()
    assert hub.requests == []
    assert (both.path / ".hub/models--acme--tiny").is_dir()


@pytest.mark.complains
def test_while_the_registry_is_down(
    start_mount: MountFactory, env: dict[str, str], hub: HubServer, repo: Repo, tmp_path: Path
) -> None:
    """While a registry that never listed its models does not answer, an id that may be its own is
    not looked up on the Hub either, but for models that are local."""
    pin = [sys.executable, "-m", "axonfs", "pin", "hf/acme/tiny", "--cache", f"{tmp_path}/cache"]
    subprocess.run(pin, env={**os.environ, **env}, capture_output=True, check=True, timeout=60)
    asked = len(hub.requests)
    mount = start_mount("http://127.0.0.1:9", env=env)
    with pytest.raises(OSError, match="Input/output error"):
        os.stat(mount.path / ".hub/models--nlp--other")
    assert len(hub.requests) == asked
    model = mount.path / ".hub/models--acme--tiny"
    assert (model / "refs/main").read_text() == repo.branches["main"]
    assert names(mount.path / ".hub") == ["models--acme--tiny"]


def test_what_is_listed(both: Mount, hub: HubServer, repo: Repo) -> None:
    """The mountpoint does not list `.hub`; it lists what registries list, what is local and what
    was looked up, a walk through it fetches no bytes of files, every write in it gives EROFS."""
    view, main = both.path / ".hub", repo.branches["main"]
    assert ".hub" not in names(both.path)
    assert names(view) == ["models--nlp--tiny"]  # nlp/org/deep has too many segments for an id
    with pytest.raises(OSError, match="Read-only file system"):
        (view / "models--acme--tiny/refs/main.tmp").write_text(main)  # llama.cpp, before it lists
    assert names(view) == ["models--acme--tiny", "models--nlp--tiny"]
    walked = [os.path.join(top, name) for top, _, files in os.walk(view) for name in files]
    assert str(view / f"models--acme--tiny/snapshots/{main}/onnx/model.onnx") in walked
    assert both.fetched() == 0
    assert not hub.asked("/resolve/")
    for directory in ("models--acme--tiny/blobs", ".locks/models--acme--tiny", ".locks"):
        (view / directory).mkdir(parents=True, exist_ok=True)  # clients do so before they read
        assert names(view / directory) == []
    for path in ("CACHEDIR.TAG", ".locks/models--acme--tiny/x.lock", "models--acme--tiny/refs/x"):
        with pytest.raises(OSError, match="Read-only file system"):
            (view / path).write_text("x")


def test_a_directory_without_a_version(both: Mount, hub: HubServer, repo: Repo) -> None:
    """A program that is given a model's directory without a version loads the latest one: its files
    are symlinks into `latest`, which are found by name, and listed for ten minutes once a program
    has looked one up."""
    repo.tags["onnx"] = repo.tags["v1.0"]
    for model, config, other in (
        (both.path / "hf/acme/tiny", FILES["config.json"], "model.safetensors"),
        (both.path / "hf/gpt2", b"gpt2\n", "config.json"),
        (both.path / "nlp/tiny", (both.path / "nlp/tiny/1.1.0/config.json").read_bytes(), "sub"),
    ):
        before = names(model) if other != "config.json" else []
        assert "config.json" not in before
        assert (model / "config.json").read_bytes() == config
        assert not (model / "none.json").exists()
        assert os.readlink(model / "config.json") == "latest/config.json"
        assert (model / other).exists()
        settled(partial(lists, model, {"config.json", other}))
        assert "manifest.yaml" not in names(model)
    assert os.readlink(both.path / "hf/acme/tiny/onnx") == repo.tags["v1.0"], "a tag goes before"
    assert not (both.path / "nlp/config.json").exists()
    assert not (both.path / "nlp/tiny/none.bin").exists()


def test_a_folder_of_a_directory_without_a_version(both: Mount) -> None:
    """A program may open a file of a folder first, as loaders of one part of a pipeline do."""
    assert (both.path / "hf/acme/tiny/onnx/model.onnx").read_bytes() == FILES["onnx/model.onnx"]
    assert os.readlink(both.path / "hf/acme/tiny/onnx") == "latest/onnx"
    assert (both.path / "nlp/tiny/sub/part.bin").stat().st_size > 0
    assert not (both.path / "hf/acme/tiny/none/part.bin").exists()
    assert not (both.path / "nlp/none/part.bin").exists()
    assert not (both.path / "nlp/tiny/none/part.bin").exists()


@pytest.mark.complains
def test_refused_and_unknown_models(both: Mount, hub: HubServer, repo: Repo) -> None:
    """A model that the Hub refuses gives EACCES, and the Hub is asked for it once in ten seconds;
    a model or revision that does not exist gives ENOENT."""
    view = both.path / ".hub"
    for _ in range(5):
        with pytest.raises(PermissionError):
            os.stat(view / "models--acme--none")
    assert len(hub.asked("/acme/none")) == 1
    with pytest.raises(PermissionError):
        os.stat(view / "models--acme")
    snapshots = view / "models--acme--gated/snapshots"
    (commit,) = names(snapshots)
    with pytest.raises(PermissionError):
        (snapshots / commit / "config.json").read_bytes()
    for path in ("models--acme--tiny/refs/none", "models--nlp--none/refs/main"):
        with pytest.raises(FileNotFoundError):
            os.stat(view / path)


@pytest.mark.complains
def test_over_a_new_worker(both: Mount, repo: Repo) -> None:
    """Files, directories and listings of `.hub` stay valid when the worker is replaced."""
    model, main = both.path / ".hub/models--acme--tiny", repo.branches["main"]
    snapshot = model / "snapshots" / main
    registry = both.path / ".hub/models--nlp--tiny"
    old = registry / "snapshots" / (registry / "refs/1.0.0").read_text()
    directory = os.open(old / "sub", os.O_RDONLY | os.O_DIRECTORY)
    inner = os.open(snapshot / "onnx", os.O_RDONLY | os.O_DIRECTORY)
    refs = os.open(model / "refs", os.O_RDONLY | os.O_DIRECTORY)
    with (snapshot / "model.safetensors").open("rb") as file, (model / "refs/main").open() as ref:
        before = os.fstat(inner).st_ino, os.fstat(directory).st_ino
        first = file.read(1000)
        both.kill_worker()
        assert first + file.read() == WEIGHTS
        assert ref.read() == main
    for descriptor, name, at in ((inner, "model.onnx", refs), (directory, "part.bin", refs)):
        assert os.listdir(descriptor) == [name]
        assert os.stat(name, dir_fd=descriptor).st_size > 0
        assert os.stat("main", dir_fd=at).st_size == 40
        os.close(descriptor)
    os.close(refs)
    assert ((snapshot / "onnx").stat().st_ino, (old / "sub").stat().st_ino) == before


CLIENT = """
import json, os, sys
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError
cache = os.environ["HF_HUB_CACHE"]
ids = ["acme/tiny", "nlp/tiny"] if os.environ.get("HF_HUB_OFFLINE") else ["acme/tiny"]
found = {}
for model, old in zip(ids, ("v1.0", "1.0.0")):
    for revision in (None, old):
        path = hf_hub_download(model, "config.json", revision=revision)
        assert try_to_load_from_cache(model, "config.json", revision=revision) == path
        commit = os.path.dirname(path)
        assert snapshot_download(model, revision=revision, max_workers=1) == commit
        assert hf_hub_download(model, "config.json", revision=os.path.basename(commit)) == path
        found[f"{model}@{revision or 'main'}"] = open(path).read()
try:
    found["none"] = snapshot_download("acme/none", local_files_only=True)
except LocalEntryNotFoundError:
    pass
scanned = scan_cache_dir()
assert not scanned.warnings, scanned.warnings
print(json.dumps({
    "found": found,
    "listed": {repo.repo_id: sorted(repo.refs) for repo in scanned.repos},
    "size": {repo.repo_id: repo.refs["main"].size_on_disk for repo in scanned.repos},
}))
"""


@pytest.mark.hub
@pytest.mark.complains
@pytest.mark.parametrize("offline", ["1", ""])
def test_the_client_of_the_hub(both: Mount, hub: HubServer, tmp_path: Path, offline: str) -> None:
    """The Hub's own client finds revisions, files and commits, and scans all of it, whether it may
    send requests or not."""
    config = (tmp_path / "source1/config.json").read_text()
    answer = read_as(hub_python(), both, CLIENT, HF_HUB_OFFLINE=offline, HF_ENDPOINT=hub.url)
    assert isinstance(answer, dict)
    assert answer["found"]["acme/tiny@main"] == FILES["config.json"].decode()
    assert answer["found"]["acme/tiny@v1.0"] == "{}\n"
    assert answer["listed"]["acme/tiny"] == ["feature/x", "main", "v1.0"]
    assert answer["size"]["acme/tiny"] == sum(map(len, FILES.values()))
    if offline:
        assert answer["found"]["nlp/tiny@main"] == config
        assert answer["listed"]["nlp/tiny"] == ["1.0.0", "1.1.0", "main"]
    assert both.fetched() < 10_000, "weights stay where they are"


def test_the_lines_for_a_shell(both: Mount, tmp_path: Path) -> None:
    """`axonfs env` prints what a shell evaluates; also for a mountpoint with blanks and quotes."""
    place = tmp_path / "it's a place"
    place.mkdir()
    subprocess.run(["mount", "--bind", both.path, place], check=True)
    try:
        script = 'eval "$("$0" -m axonfs env "$1")"; echo "$HF_HUB_CACHE $HF_HUB_OFFLINE"'
        done = subprocess.run(
            ["sh", "-c", script, sys.executable, place], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{place}/.hub 1\n", done.stderr
    finally:
        subprocess.run(["umount", place], check=True)
    fish = run_axonfs("env", "--shell", "fish", both.path).stdout
    assert fish.splitlines()[0] == f"set -gx HF_HUB_CACHE '{both.path}/.hub'"
    refused = run_axonfs("env", tmp_path, check=False)
    assert refused.returncode == 1
    assert refused.stdout == ""


def test_a_cache_of_the_hub_in_a_mount(
    start_mount: MountFactory, env: dict[str, str], hub: HubServer, repo: Repo, tmp_path: Path
) -> None:
    """A mount never looks for blobs in a mount, whether its HF_HUB_CACHE or a folder there leads
    into one; with the variables of `axonfs env` it asks the Hub as usual."""
    downloads = tmp_path / "downloads"
    (downloads / "models--acme--real/blobs").mkdir(parents=True)
    blob = downloads / "models--acme--real/blobs" / sha256(WEIGHTS)
    blob.write_bytes(WEIGHTS)
    (downloads / "models--acme--tiny").symlink_to("../mnt0/.hub/models--acme--tiny")
    options = ("--prefetch", "off")
    first = start_mount(env={**env, "HF_HUB_CACHE": str(downloads)}, options=options)
    assert (first.path / "hf/acme/tiny/main/model.safetensors").read_bytes() == WEIGHTS
    assert first.status()["open"] == []
    assert not hub.asked(sha256(WEIGHTS)), "it was copied from the folder beside the symlink"
    readers = {"HF_HUB_CACHE": str(tmp_path / "mnt1/.hub"), "HF_HUB_OFFLINE": "1"}
    settings = {**env, **readers}
    second = start_mount(env=settings, cache=tmp_path / "cache2", options=options)
    assert (second.path / "hf/acme/tiny/main/model.safetensors").read_bytes() == WEIGHTS
    assert hub.asked(sha256(WEIGHTS))
