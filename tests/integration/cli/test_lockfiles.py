"""`axonfs lock` on one machine, `axonfs pin --lock` on another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.formats.lockfile import parse_lock
from tests.support.commands import Run
from tests.support.registry import SPEC, RegistryServer, published

SIZES = {"model.safetensors": 300_000, "part/two.bin": 5000}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    directory = published(tmp_path, SIZES)
    published(tmp_path, SIZES | {"more.bin": 10}, spec="nlp/tiny@1.1.0")
    with RegistryServer(directory) as server:
        yield server


@pytest.fixture
def lock(run: Run, registry: RegistryServer, tmp_path: Path) -> Path:
    """A lock file of a whole version and of a part of another."""
    run("registry", "add", registry.url)
    run("pin", SPEC)
    run("pin", "nlp/tiny@1.1.0", "--include", "part/")
    file = tmp_path / "axonfs.lock"
    done = run("lock", file)
    assert done.out == f"{file}: 2 versions, 303 KiB\n"
    return file


@pytest.fixture
def elsewhere(run: Run, lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Commands on another machine: the same registry, an empty cache."""
    monkeypatch.setenv("AXONFS_CACHE_DIR", str(tmp_path / "elsewhere"))
    return run


def test_a_lock_pins_exactly_what_was_pinned(
    elsewhere: Run, lock: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    published(tmp_path, SIZES, spec="nlp/tiny@9.0.0", seed=9)
    done = elsewhere("pin", "--lock", lock)
    assert done.code == 0
    assert [line.split(" (")[0] for line in done.out.splitlines()[::3]] == [
        "nlp/tiny@1.0.0 is pinned: 3 files, 298 KiB",
        "nlp/tiny@1.1.0 is pinned: 1 file, 4.9 KiB",
    ]
    assert elsewhere("pin", "--check").code == 0
    again = lock.with_name("again.lock")
    elsewhere("lock", again)
    assert again.read_bytes() == lock.read_bytes()
    (whole, part) = parse_lock(lock.read_bytes())
    assert whole.source == f"{registry.url}/"
    assert part.paths == ("part/two.bin",)


def test_a_manifest_that_differs_fails_and_pins_nothing(
    elsewhere: Run, lock: Path, registry: RegistryServer
) -> None:
    (_, part) = parse_lock(lock.read_bytes())
    lock.write_text(lock.read_text().replace(part.manifest, "0" * 64))
    done = elsewhere("pin", "--lock", lock)
    assert (done.code, done.out) == (1, "")
    assert "nlp/tiny@1.1.0: its manifest has the digest" in done.err
    assert f"{part.manifest[:16]}…, not 0000000000000000…" in done.err
    assert registry.url in done.err
    assert elsewhere("pin", "--check").err == "nothing is pinned\n"


def test_a_version_that_no_registry_has_says_where_it_was(
    elsewhere: Run, lock: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    with RegistryServer(published(tmp_path / "other", SIZES, spec="nlp/else@1.0.0")) as other:
        done = elsewhere("pin", "--lock", lock, "--registry", other.url)
    assert done.code == 1
    assert f"nlp/tiny@1.0.0: no registry has it; it was locked from {registry.url}/" in done.err


def test_named_specs_are_locked_whether_pinned_or_not(
    run: Run, registry: RegistryServer, tmp_path: Path
) -> None:
    file = tmp_path / "axonfs.lock"
    empty = run("lock", file, "--registry", registry.url)
    assert (empty.code, file.exists()) == (1, False)
    assert "nothing is pinned" in empty.err
    done = run("lock", "-", "nlp/tiny@~1.0", "--registry", registry.url)
    assert done.err == "nlp/tiny@~1.0 is nlp/tiny@1.0.0\n"
    (locked,) = parse_lock(done.out.encode())
    assert (str(locked.spec), locked.files, locked.paths) == (SPEC, 3, None)
    info = json.loads(run("info", SPEC, "--json").out)
    assert locked.manifest == info["digest"]


def test_only_a_lock_file_is_written_over(run: Run, lock: Path, tmp_path: Path) -> None:
    assert run("lock", lock).code == 0
    other = tmp_path / "weights.bin"
    other.write_bytes(b"\xff" * 100)
    refused = run("lock", other)
    assert refused.code == 2
    assert "exists and is not a lock file" in refused.err
    assert other.read_bytes() == b"\xff" * 100
    assert not list(tmp_path.glob(".*.lock*"))


def test_wrong_usage_of_lock(run: Run, lock: Path, tmp_path: Path) -> None:
    assert run("pin", "--lock", lock, SPEC).code == 2
    assert run("pin", "--lock", lock, "--check").code == 2
    assert run("pin", "--lock", tmp_path / "absent").code == 2
    nowhere = run("lock", tmp_path / "absent/lock.yaml", SPEC)
    assert (nowhere.code, f"the directory {tmp_path}/absent does not exist" in nowhere.err) == (
        2,
        True,
    )
    lock.write_text("a: 1\n")
    bad = run("pin", "--lock", lock)
    assert bad.code == 1
    assert (
        f"invalid lock file: it is not a lock file with the apiVersion axonfs/v1 (from {lock})"
        in bad.err
    )
