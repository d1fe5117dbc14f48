"""docs/semantics.md on files without a sha256: the registry data of Axon's own repository."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from axonfs.names import parse_spec
from tests.mount.conftest import Mount, MountFactory, run_axonfs
from tests.support.faulty_origin import FaultyOrigin
from tests.support.placeholders import FILE, SPECS, UNVERIFIED, VERIFIED, bytes_of, write_registry

pytestmark = pytest.mark.mount


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[FaultyOrigin]:
    write_registry(tmp_path / "registry")
    with FaultyOrigin(tmp_path / "registry") as origin:
        yield origin


def file_of(mount: Mount, spec: str) -> Path:
    return mount.path.joinpath(*parse_spec(spec).segments, FILE)


def config(tmp_path: Path, origin: FaultyOrigin, *, allowed: bool) -> dict[str, str]:
    """The variables of a user who has the registry in the config file, as one mapping."""
    path = tmp_path / "config.yaml"
    path.write_text(
        yaml.safe_dump({"registries": [{"url": origin.url, "allow_unverified": allowed}]})
    )
    return {"AXONFS_CONFIG": str(path), "AXONFS_SOURCES": "none"}


def test_packed(start_mount: MountFactory, origin: FaultyOrigin) -> None:
    """A file without a sha256 in the manifest is read from its package if that has a sha256."""
    mount = start_mount(origin.url)
    for spec in VERIFIED:
        assert file_of(mount, spec).read_bytes() == bytes_of(spec)
        assert "user.axonfs.package" in os.listxattr(file_of(mount, spec))
    done = run_axonfs("pin", *VERIFIED, "--cache", mount.cache)
    assert done.stdout.count("verified") == len(VERIFIED)
    assert "cannot be verified" not in done.stdout


@pytest.mark.complains
def test_unverified(start_mount: MountFactory, origin: FaultyOrigin) -> None:
    """A file without any sha256 is listed with its size, and reading it gives EIO, with the reason
    in the log and in `status`."""
    mount = start_mount(origin.url)
    for spec in SPECS:
        assert file_of(mount, spec).stat().st_size == len(bytes_of(spec))
        assert sorted(os.listdir(file_of(mount, spec).parent)) == ["manifest.yaml", FILE]
    for spec in UNVERIFIED[::10]:
        with file_of(mount, spec).open("rb") as file, pytest.raises(OSError, match="Input/output"):
            file.read(10)
        why = f"{spec} {FILE}: cannot be verified: neither the file nor its package has a sha256"
        assert why in mount.log.read_text()
        assert why in mount.status()["failures"][-1]["message"]
    assert not any("/packages/" in seen.path for seen in origin.requests)
    done = run_axonfs("pin", UNVERIFIED[0], "--cache", mount.cache, check=False)
    assert done.returncode == 1
    assert "cannot be verified" in done.stderr
    assert "--allow-unverified" in done.stderr
    info = run_axonfs("info", UNVERIFIED[0], "--files", "--cache", mount.cache).stdout
    assert "1 file cannot be verified" in info
    assert "reading them fails" in info


def test_allowed(start_mount: MountFactory, origin: FaultyOrigin, tmp_path: Path) -> None:
    """If its registry may serve such files it is read, and its extended attributes, `status`,
    `info` and the receipt of a pin say that it was not verified."""
    env = config(tmp_path, origin, allowed=True)
    mount = start_mount(env=env)
    for spec in UNVERIFIED[::10]:
        assert file_of(mount, spec).read_bytes() == bytes_of(spec)
    first = UNVERIFIED[0]
    assert os.getxattr(file_of(mount, first), "user.axonfs.unverified") == b"no sha256"
    assert "user.axonfs.sha256" not in os.listxattr(file_of(mount, first))
    with file_of(mount, first).open("rb"):
        assert mount.status()["open"][0]["unverified"] is True
    assert mount.status()["registries"][0]["allow_unverified"] is True
    at = ("--cache", mount.cache)
    pinned = run_axonfs("pin", first, *at).stdout
    assert "1 file cannot be verified; local" in pinned
    assert "proven" not in pinned
    assert "1 file cannot be verified" in run_axonfs("pin", "--check", *at).stdout
    info = run_axonfs("info", first, *at).stdout
    assert "1 file cannot be verified" in info
    assert "reading them is allowed" in info
    assert "cannot be verified" in run_axonfs("versions", parse_spec(first).model, *at).stdout
    assert "cannot be verified" in run_axonfs("verify", first, *at).stdout
    searched = run_axonfs("search", "gpt-neo", *at).stdout.splitlines()
    assert "cannot be verified" in next(line for line in searched if first in line)
    locked = run_axonfs("lock", tmp_path / "models.lock", first, *at)
    assert "1 file cannot be verified" in locked.stderr
    found = json.loads(run_axonfs("pin", "--check", "--json", *at).stdout)
    assert (found[0]["whole"], found[0]["unverified"]) == (True, 1)


@pytest.mark.complains
def test_what_is_no_longer_allowed_is_not_read_from_the_cache(
    start_mount: MountFactory, origin: FaultyOrigin, tmp_path: Path
) -> None:
    mount = start_mount(env=config(tmp_path, origin, allowed=True))
    for spec in (UNVERIFIED[0], VERIFIED[0]):
        assert file_of(mount, spec).read_bytes() == bytes_of(spec)
    run_axonfs("pin", UNVERIFIED[0], VERIFIED[0], "--cache", mount.cache)
    mount.stop()
    mount = start_mount(env=config(tmp_path, origin, allowed=False), cache=mount.cache)
    assert file_of(mount, VERIFIED[0]).read_bytes() == bytes_of(VERIFIED[0])
    with pytest.raises(OSError, match="Input/output"):
        file_of(mount, UNVERIFIED[0]).read_bytes()
    done = run_axonfs("pin", "--check", "--cache", mount.cache, check=False)
    assert done.returncode == 1
    assert f"{FILE}: it cannot be verified, and its registry may not serve" in done.stdout
    done = run_axonfs("pin", UNVERIFIED[0], "--cache", mount.cache, check=False)
    assert (done.returncode, "--allow-unverified has it read" in done.stderr) == (1, True)


@pytest.mark.complains
def test_the_setting_applies_at_once(
    start_mount: MountFactory,
    origin: FaultyOrigin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = config(tmp_path, origin, allowed=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    mount = start_mount(env=env)
    with pytest.raises(OSError, match="Input/output"):
        file_of(mount, UNVERIFIED[0]).read_bytes()
    done = run_axonfs("registry", "add", origin.url, "--allow-unverified")
    assert f"applies now to the mount at {mount.path}" in done.stderr
    assert file_of(mount, UNVERIFIED[0]).read_bytes() == bytes_of(UNVERIFIED[0])
    with file_of(mount, UNVERIFIED[0]).open("rb", buffering=0) as before:
        assert before.read(10) == bytes_of(UNVERIFIED[0])[:10]
        run_axonfs("registry", "add", origin.url, "--no-allow-unverified")
        with pytest.raises(OSError, match="Input/output"):
            file_of(mount, UNVERIFIED[0]).read_bytes()
        with pytest.raises(OSError, match="Input/output"):
            before.read(10)
        run_axonfs("registry", "add", origin.url, "--allow-unverified")
        assert before.read(10) == bytes_of(UNVERIFIED[0])[10:20]
    assert file_of(mount, UNVERIFIED[0]).read_bytes() == bytes_of(UNVERIFIED[0])


@pytest.mark.complains
def test_a_package_that_is_not_what_was_declared_is_refused_all_the_same(
    start_mount: MountFactory, origin: FaultyOrigin, tmp_path: Path
) -> None:
    """The sizes of its manifest hold for it, and a gzip stream has a sum of its own."""
    registry = tmp_path / "registry"
    for number, spec in enumerate(UNVERIFIED[:2]):
        parsed = parse_spec(spec)
        path = registry / f"packages/{parsed.namespace}-{parsed.name}-{parsed.version}.axon"
        whole = path.read_bytes()
        path.write_bytes(
            b"# placeholder package\n" if number else whole[:-8] + bytes(4) + whole[-4:]
        )
    mount = start_mount(env=config(tmp_path, origin, allowed=True))
    for spec in UNVERIFIED[:2]:
        with pytest.raises(OSError, match="Input/output"):
            file_of(mount, spec).read_bytes()
        assert "the package is not what the manifest declares" in mount.log.read_text()
