"""What other users are told beside a mount of root's, and where tokens are kept from them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.conftest import FILES, Mount, MountFactory
from tests.support.faulty_origin import FaultyOrigin
from tests.support.registry import RegistryServer

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.getuid() != 0, reason="becomes another user"),
    pytest.mark.usefixtures("open_to_users", "open_path"),
]
NOBODY = 65534
SECRET = "t0ken-to-be-kept-secret"
SPEC = "nlp/tiny@1.0.0"
AsUser = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def as_user(tmp_path: Path) -> AsUser:
    """Runs one command as another user with a home of their own; `env` goes before the usual."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, NOBODY, NOBODY)
    usual = {
        "HOME": str(home),
        **{name: os.environ[name] for name in ("PATH", "AXONFS_CACHE_SIZE")},
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "AXONFS_SOURCES": "none",
    }

    def run(*line: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "axonfs", *map(str, line)],
            user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", env={**usual, **env},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run


def said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


def test_other_users_beside_a_mount(
    start_mount: MountFactory, registry: RegistryServer, as_user: AsUser
) -> None:
    """Beside a mount of root's with `--allow-other`, the commands of other users read its status,
    ask the registries that it names, and say whose it is where only root can act."""
    mount = start_mount(registry.url, options=("--allow-other",))
    shown = as_user("status", mount.path)
    assert (shown.returncode, "root's mount" in shown.stderr) == (0, True)
    assert registry.url in shown.stdout
    state = json.loads(as_user("status", mount.path, "--json").stdout)
    assert state["mountpoint"] == str(mount.path)
    assert as_user("explain", mount.path).stdout.startswith("nothing waits")
    for line in (["search", "tiny"], ["info", "nlp/tiny"], ["versions", "nlp/tiny"]):
        found = as_user(*line)
        assert (found.returncode, "1.1.0" in found.stdout) == (0, True), line
        assert f"root's mount at {mount.path}" in found.stderr
    for command in (("umount",), ("umount", "--force"), ("restart",)):
        refused = as_user(*command, mount.path)
        assert refused.returncode == 1
        assert "root's mount" in refused.stderr
        assert "as root: axonfs" in refused.stderr
        unnamed = as_user(*command)
        assert unnamed.returncode == 1
        assert f"root's at {mount.path}" in unnamed.stderr
        chosen = as_user(*command, AXONFS_MOUNTPOINT=str(mount.path))
        assert "only root may" in chosen.stderr
    assert as_user("path", "--mounted", "nlp/tiny").stdout == f"{mount.path}/nlp/tiny/1.1.0\n"
    for line in (["pin", SPEC], ["list"], ["verify"], ["cache", "list"]):
        assert "root's mount" in said(as_user(*line)), line
    assert "no registry is configured" in said(as_user("pin", SPEC))
    own = as_user("pin", SPEC, "--registry", registry.url)
    assert own.returncode == 0
    assert (mount.path / "nlp/tiny/1.0.0/vocab.txt").stat().st_size == FILES["vocab.txt"]


def test_other_users_beside_a_closed_mount(mount: Mount, as_user: AsUser) -> None:
    shown = as_user("status", mount.path)
    assert shown.returncode == 1
    for done in (shown, as_user("status"), as_user("search", "tiny"), as_user("doctor")):
        assert "closed to other users" in said(done)
    assert "root's mount" in as_user("restart", mount.path).stderr


def test_a_user_without_a_home(
    start_mount: MountFactory, registry: RegistryServer, as_user: AsUser
) -> None:
    """What only looks needs no cache of its own, and no config file that it may not read."""
    mount = start_mount(registry.url, options=("--allow-other",))
    for home in ("/nonexistent", "/root"):
        found = as_user("info", "nlp/tiny", HOME=home)
        assert (found.returncode, "nlp/tiny@1.1.0" in found.stdout) == (0, True), found.stderr
        assert as_user("status", mount.path, HOME=home).returncode == 0


def test_a_config_file_that_is_closed(
    start_mount: MountFactory, registry: RegistryServer, as_user: AsUser, tmp_path: Path
) -> None:
    """It is told of once, and is no reason to stop what only looks."""
    config = tmp_path / "config.yaml"
    config.write_text(f"registries: [{registry.url}]\n")
    config.chmod(0o600)
    mount = start_mount(registry.url, options=("--allow-other",))
    found = as_user("search", "tiny", AXONFS_CONFIG=str(config))
    assert (found.returncode, SPEC in found.stdout) == (0, True)
    assert found.stderr.count(str(config)) == 1
    assert as_user("status", mount.path, AXONFS_CONFIG=str(config)).returncode == 0
    pin = as_user("pin", SPEC, AXONFS_CONFIG=str(config))
    assert (pin.returncode, "no registry is configured" in pin.stderr) == (1, True)
    assert str(config) in pin.stderr
    config.chmod(0o644)
    assert as_user("pin", SPEC, AXONFS_CONFIG=str(config)).returncode == 0


def test_tokens_have_a_file_of_their_own(
    start_mount: MountFactory, registry_dir: Path, as_user: AsUser, tmp_path: Path
) -> None:
    """The config file is open to all, and the token beside it is used and seen by root alone."""
    config, tokens = tmp_path / "config.yaml", tmp_path / "tokens.yaml"
    with FaultyOrigin(registry_dir) as origin:
        url = origin.url.rstrip("/")
        config.write_text(f"registries: [{url}]\n")
        config.chmod(0o644)
        tokens.write_text(f"{url}: {SECRET}\n")
        tokens.chmod(0o600)
        env = {"AXONFS_CONFIG": str(config)}
        mount = start_mount(options=("--allow-other",), env=env)
        assert os.listdir(mount.path / "nlp/tiny/1.0.0")
        assert {seen.headers["authorization"] for seen in origin.requests} == {f"Bearer {SECRET}"}
        mine = len(origin.requests)
        found = as_user("search", "tiny", **env)
        assert (found.returncode, SPEC in found.stdout) == (0, True)
        assert all("authorization" not in seen.headers for seen in origin.requests[mine:])
        shown = [found, as_user("status", mount.path, "--json"), as_user("config", "list", **env)]
        assert not any(SECRET in said(done) for done in shown)
        assert SECRET not in (mount.path / ".axonfs/status.json").read_text()
