"""docs/semantics.md on what a hub's files and revisions may be called, on a real mount."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import MountFactory, run_axonfs
from tests.support.hub import HubServer, Repo
from tests.support.registry import RegistryServer

pytestmark = pytest.mark.mount

LEGAL = [
    "zero\u200djoiner.txt",
    "line\nbreak",
    "\u202eevil.exe",
    "esc\x1b[2J",
    "Config.json",
    "gro\u0308ße",
    "größe",
    " ",
    "x" * 255,
    "/".join("d" * 40),
]
OWN = "manifest.yaml/own"  # a directory, which only a hub may have
ODD = ["y" * 256, "ü" * 128]
REVISIONS = {
    "refs/pr/1": "refs%2Fpr%2F1",
    "dev/x": "dev%2Fx",
    "fix#1": "fix%231",
    "rel@1": "rel%401",
    "50%": "50%25",
    "a%2Fb": "a%252Fb",
}


@pytest.fixture
def repo() -> Repo:
    made = Repo("acme/tiny")
    for revision in REVISIONS:
        made.commit({"config.json": revision.encode()}, branch=revision)
    made.commit({"config.json": b"{}", **{name: name.encode() for name in (OWN, *LEGAL, *ODD)}})
    return made


@pytest.fixture
def hub(repo: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AXONFS_CONFIG", str(tmp_path / "none.yaml"))
    plain = Repo("gpt2")
    plain.commit({"config.json": b"gpt2"}, branch="dev/x")
    with HubServer(repo, plain) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.mark.complains
def test_names_of_files(start_mount: MountFactory, hub: HubServer, tmp_path: Path) -> None:
    """A file of a version may have any name that Linux allows; files with other names are left out
    with a warning, and the rest are served."""
    mount = start_mount()
    top = mount.path / "hf/acme/tiny/main"
    assert sorted(os.listdir(top)) == sorted(
        {"config.json", "manifest.yaml", *(name.partition("/")[0] for name in LEGAL)}
    )
    for name in (OWN, *LEGAL):
        assert (top / name).read_bytes() == name.encode()
    (warning,) = mount.complaints()
    assert "served without 2 files that no directory can hold" in warning
    for command in (["info", "--files"], ["pin"]):
        done = run_axonfs(*command, "hf/acme/tiny", "--cache", mount.cache)
        assert all(line.isprintable() for line in done.stdout.splitlines())
        assert len(done.stdout.splitlines()) < 40
    linked = Path(run_axonfs("path", "hf/acme/tiny", "--cache", mount.cache).stdout.strip())
    for name in (OWN, *LEGAL):
        assert (linked / name).read_bytes() == name.encode()
    assert "left out:  2 files whose path Linux does not allow: yyy" in run_axonfs(
        "info", "hf/acme/tiny", "--cache", mount.cache
    ).stdout  # fmt: skip


@pytest.mark.complains  # an unknown revision may be a folder of `latest`
def test_revisions(start_mount: MountFactory, hub: HubServer, repo: Repo) -> None:
    """Any branch or tag of a hub has a path, percent-encoded if it has special characters."""
    mount = start_mount()
    model = mount.path / "hf/acme/tiny"
    for revision, segment in REVISIONS.items():
        assert os.readlink(model / segment) == repo.branches[revision]
        assert (model / segment / "config.json").read_bytes() == revision.encode()
    assert (mount.path / "hf/gpt2/dev%2Fx/config.json").read_bytes() == b"gpt2"
    assert set(REVISIONS.values()) < set(os.listdir(model))
    assert os.readlink(model / "refs%2fpr%2f1") == repo.branches["refs/pr/1"]
    for absent in ("refs%2Fpr%2F2", "a%2Fb", "%2e%2e", "%00", "fix#1"):
        assert not (model / absent).exists()
    for spec in ("refs/pr/1", "refs%2Fpr%2F1", "fix#1", "rel@1", "50%", "50%25"):
        done = run_axonfs("pin", f"hf/acme/tiny@{spec}", "--cache", mount.cache)
        assert "is pinned" in done.stdout
        run_axonfs("pin", "--check", f"hf/acme/tiny@{spec}", "--cache", mount.cache)


def test_published_names(start_mount: MountFactory, tmp_path: Path) -> None:
    """What was published under such names is read under them."""
    for name in LEGAL:
        file = tmp_path / "source" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    run_axonfs("publish", tmp_path / "source", "nlp/odd@1.0.0", "--to", tmp_path / "registry")
    with RegistryServer(tmp_path / "registry") as registry:
        mount = start_mount(registry.url)
        for name in LEGAL:
            assert (mount.path / "nlp/odd/1.0.0" / name).read_bytes() == name.encode()
        run_axonfs("verify", "nlp/odd@1.0.0", "--cache", mount.cache)


@pytest.mark.complains
@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline(start_mount: MountFactory, hub: HubServer, repo: Repo, variable: str) -> None:
    """With HF_HUB_OFFLINE no requests go to the Hub, and names that are not local give
    ENETUNREACH."""
    main = repo.branches["main"]
    first = start_mount()
    config = first.path / "hf/acme/tiny/main/config.json"
    assert config.read_bytes() == b"{}"
    first.stop()
    asked = len(hub.requests)
    mount = start_mount(env={variable: "True"})
    top = mount.path / "hf/acme/tiny"
    assert (top / "main/config.json").read_bytes() == b"{}"
    assert main in os.listdir(top)
    for path in (top / "main/Config.json", top / "dev%2Fx/config.json", top / ("0" * 40)):
        with pytest.raises(OSError, match="Network is unreachable"):
            path.read_bytes()
    done = run_axonfs("search", "--source", "hf", "tiny", "--cache", mount.cache, check=False)
    assert variable in done.stderr
    for command, code in (("versions", 0), ("update", 1)):
        done = run_axonfs(command, "hf/acme/tiny", "--cache", mount.cache, check=False)
        assert (done.returncode, variable in done.stderr) == (code, code == 1)
    assert len(hub.requests) == asked
