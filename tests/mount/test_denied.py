"""docs/semantics.md on registries that refuse what is not there, or everything."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import FILES, MountFactory, run_axonfs
from tests.support import faulty
from tests.support.faulty import Exchange
from tests.support.faulty_origin import FaultyOrigin

pytestmark = pytest.mark.mount


def storage(exchange: Exchange) -> None:
    """As S3 answers those who may not list: 403 for what is not there."""
    if exchange.status == 404:
        faulty.status(403)(exchange)


@pytest.fixture
def origin(registry_dir: Path) -> Iterator[FaultyOrigin]:
    with FaultyOrigin(registry_dir) as origin:
        origin.always(storage)
        yield origin


def test_absent(origin: FaultyOrigin, start_mount: MountFactory) -> None:
    """If a registry answers 403 for missing files, a name that it does not list gives ENOENT."""
    mount = start_mount(origin.url)
    assert (mount.path / "nlp/tiny/latest/vocab.txt").stat().st_size == FILES["vocab.txt"]
    for absent in ("nlp/tiny/9.9.9", "nlp/other", "nlp/other/1.0.0", "cv", "nlp/tiny/1.0.0/none"):
        assert not (mount.path / absent).exists()
    for line in (["info", "nlp/tiny@9.9.9"], ["versions", "nlp/other"], ["pin", "nlp/other"]):
        done = run_axonfs(*line, "--cache", mount.cache, check=False)
        assert "no such" in done.stderr
    found = run_axonfs("search", "tiny", "--cache", mount.cache)
    assert "nlp/tiny@1.1.0" in found.stdout


@pytest.mark.complains
@pytest.mark.parametrize("index", [True, False])
def test_without_lists(
    origin: FaultyOrigin, start_mount: MountFactory, registry_dir: Path, index: bool
) -> None:
    """Without an index it is not known at first whether everything is refused."""
    for path in registry_dir.glob("api/v1/models/**/versions.json"):
        path.unlink()
    if not index:
        (registry_dir / "api/v1/index.json").unlink()
    mount = start_mount(origin.url)
    assert mount.complaints() == [] or not index
    top = mount.path
    assert (top / "nlp/tiny/1.0.0/vocab.txt").stat().st_size == FILES["vocab.txt"]
    assert not (top / "nlp/tiny/9.9.9").exists()


@pytest.mark.complains
@pytest.mark.parametrize("status", [401, 403])
def test_everything_is_refused(
    origin: FaultyOrigin, start_mount: MountFactory, status: int
) -> None:
    """A registry that refuses every request gives EACCES, never an empty directory."""
    origin.always(faulty.status(status))
    mount = start_mount(origin.url)
    for path in (mount.path, mount.path / "nlp/tiny/1.0.0", mount.path / "nlp/tiny/latest"):
        with pytest.raises(PermissionError):
            os.listdir(path)
    lines = ["search tiny", "info nlp/tiny", "info nlp/tiny@1.0.0", "versions nlp/tiny"]
    for line in (*lines, "pin nlp/tiny"):
        done = run_axonfs(*line.split(), "--cache", mount.cache, check=False)
        assert done.returncode == 1
        assert f"access denied: the server answered {status}" in done.stderr, line
        assert "--with-token" in done.stderr, line
    assert f"answered {status}" in mount.status()["registries"][0]["error"]


@pytest.mark.complains
def test_a_listed_version_that_is_refused(
    origin: FaultyOrigin, start_mount: MountFactory, registry_dir: Path
) -> None:
    """A version that is listed and an object that a manifest names are refused, not absent."""
    shutil.rmtree(registry_dir / "objects")
    (registry_dir / "api/v1/models/nlp/tiny/1.0.0/manifest.yaml").unlink()
    top = start_mount(origin.url).path
    with pytest.raises(PermissionError):
        os.listdir(top / "nlp/tiny/1.0.0")
    with pytest.raises(PermissionError):
        (top / "nlp/tiny/1.1.0/vocab.txt").read_bytes()


@pytest.mark.complains
def test_beside_another(
    origin: FaultyOrigin, start_mount: MountFactory, registry_dir: Path, tmp_path: Path
) -> None:
    """A registry that refuses everything takes nothing from another one."""
    (tmp_path / "locked").mkdir()
    with FaultyOrigin(tmp_path / "locked") as locked:
        locked.always(faulty.status(403))
        top = start_mount(locked.url, origin.url).path
        assert sorted(os.listdir(top / "nlp")) == ["org", "tiny"]
        assert (top / "nlp/tiny/1.0.0/vocab.txt").stat().st_size == FILES["vocab.txt"]
        with pytest.raises(PermissionError):
            os.listdir(top / "nlp/tiny/9.9.9")


def test_wrong_names_while_the_latest_version_is_denied(
    origin: FaultyOrigin, start_mount: MountFactory
) -> None:
    """A name that no version has is looked up in the latest version; if that cannot be had, which
    may take a deadline, the next wrong names do not ask for it."""
    mount = start_mount(origin.url)
    assert os.listdir(mount.path / "nlp/tiny")
    origin.always(denied)
    for number in range(3):
        assert not (mount.path / f"nlp/tiny/wrong{number}").exists()
    asked = [seen.path for seen in origin.requests if "/1.1.0/manifest" in seen.path]
    assert len(asked) == 1


def denied(exchange: Exchange) -> None:
    if "/1.1.0/" in exchange.seen.path:
        faulty.status(403)(exchange)
