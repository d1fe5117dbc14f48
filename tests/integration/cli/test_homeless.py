"""A user without an entry in passwd and without HOME, as OpenShift runs containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from axonfs.settings.homes import below_home, home
from tests.support.registry import SPEC, RegistryServer, make_model, published

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's id")
UID = 1_000_650_000
# The interpreter and this checkout may lie in root's home, so reading stays allowed.
CAPABILITY = "+dac_read_search"
AS_USER = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
AS_USER += [f"--inh-caps={CAPABILITY}", f"--ambient-caps={CAPABILITY}"]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that is this user's, in one that they can reach."""
    directory = Path(tempfile.mkdtemp(prefix="axonfs-homeless-"))
    directory.chmod(0o755)
    os.chown(directory, UID, UID)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def run(place: Path) -> Run:
    kept = {name: os.environ[name] for name in ("PATH", "AXONFS_CACHE_SIZE")}

    def command(*line: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*AS_USER, sys.executable, "-m", "axonfs", *map(str, line)],
            env={**kept, "PYTHONPATH": os.getcwd(), **variables},
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return command


WITHOUT_A_CACHE = [
    ["--help"],
    ["config", "list"],
    ["config", "get", "streams"],
    ["registry", "list"],
    ["registry", "list", "--json"],
]


@pytest.mark.parametrize("line", WITHOUT_A_CACHE)
def test_what_needs_no_home_works(run: Run, line: list[str]) -> None:
    done = run(*line)
    assert done.returncode == 0, done.stderr
    assert "bug" not in done.stderr


@pytest.mark.parametrize(
    "line",
    [
        ["search", "x"],
        ["info", SPEC],
        ["list"],
        ["pin", SPEC],
        ["cache", "stats"],
        ["status"],
        ["doctor"],
        ["mount", "--registry", "http://127.0.0.1:9"],
    ],
)
def test_what_needs_a_cache_says_what_to_set(run: Run, line: list[str]) -> None:
    done = run(*line)
    assert done.returncode == 2
    assert done.stderr == (
        f"axonfs: no home directory for the cache: HOME is not set, and user {UID} has no"
        " entry in /etc/passwd; set AXONFS_CACHE_DIR, or HOME\n"
    )


def test_an_edit_says_where_its_file_could_be(run: Run, place: Path) -> None:
    done = run("registry", "add", "http://models.example.org")
    assert done.returncode == 2
    assert "no home directory for a config file" in done.stderr
    assert done.stderr.endswith("; set AXONFS_CONFIG, or HOME\n")
    made = run("registry", "add", "http://models.example.org", XDG_CONFIG_HOME=str(place))
    assert made.returncode == 0, made.stderr
    assert (place / "axonfs/config.yaml").exists()


def test_with_a_cache_named_everything_works(run: Run, place: Path, tmp_path: Path) -> None:
    with RegistryServer(published(tmp_path)) as server:
        for name, value in (
            ("AXONFS_CACHE_DIR", f"{place}/one"),
            ("XDG_CACHE_HOME", f"{place}/two"),
            ("HOME", f"{place}/three"),
        ):
            settings = {"AXONFS_REGISTRY": server.url, name: value}
            for line in (["pin", SPEC], ["list"], ["pin", "--check"], ["doctor"], ["status"]):
                done = run(*line, **settings)
                assert "bug" not in done.stderr + done.stdout
                assert done.returncode == 0 or line in (["doctor"], ["status"]), done.stderr
    assert (place / "one/index.lmdb").exists()
    assert (place / "two/axonfs/index.lmdb").exists()
    assert (place / "three/.cache/axonfs/index.lmdb").exists()


def test_publishing_needs_no_home(run: Run, place: Path) -> None:
    make_model(place / "model")
    done = run("publish", place / "model", SPEC, "--to", place / "reg")
    assert done.returncode == 0, done.stderr
    tilde = run("publish", place / "model", SPEC, "--to", "~/reg")
    assert "names a home directory that does not exist" in tilde.stderr


def test_a_relative_path_in_a_variable_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert below_home(".cache", "axonfs", variable="XDG_CACHE_HOME") == Path(
        "/somewhere/.cache/axonfs"
    )
    monkeypatch.setenv("HOME", "")
    assert home() == Path("/root")
