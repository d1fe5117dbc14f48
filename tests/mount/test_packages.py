"""docs/axon.md on packages, on a real mount: versions whose bytes are one tar.gz."""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.conftest import Mount, MountFactory, run_axonfs
from tests.support.faulty_origin import FaultyOrigin
from tests.support.packages import PATH, Pause, add_package, package_of, stored

pytestmark = pytest.mark.mount

PIECE = 1 << 20
SPEC = "vision/resnet50@1.0.0"
# Noise does not shrink, so that three quarters of the package hold the first file whole.
FIRST, LAST = (random.Random(size).randbytes(size) for size in (PIECE + 77, 3 * PIECE + 5))
FILES = {"config.json": b'{"layers": 50}\n', "sub/first.bin": FIRST, "last.bin": LAST}


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    (tmp_path / "registry").mkdir()
    return tmp_path / "registry"


def version(mount: Mount) -> Path:
    return mount.path / "vision/resnet50/1.0.0"


def asked(origin: FaultyOrigin, part: str = "/packages/") -> int:
    return sum(part in seen.path for seen in origin.requests)


def came(mount: Mount, size: int) -> None:
    """Return when the mount has fetched `size` bytes."""
    deadline = time.monotonic() + 20
    while mount.fetched() < size:
        assert time.monotonic() < deadline
        time.sleep(0.01)  # a mount sends no event for this


def test_the_first_read_of_any_file_brings_them_all(
    start_mount: MountFactory, registry: Path, origin: FaultyOrigin
) -> None:
    """Looking starts nothing; afterwards the package is asked for no more, by the next mount
    neither."""
    add_package(registry, SPEC, FILES)
    mount = start_mount(origin.url)
    for path, data in FILES.items():
        assert (version(mount) / path).stat().st_size == len(data)
    assert asked(origin) == 0
    for path in reversed(FILES):
        assert (version(mount) / path).read_bytes() == FILES[path]
        assert asked(origin) == 1
    cache = mount.cache
    mount.stop()
    mount = start_mount(origin.url, cache=cache, options=("--offline",))
    for path, data in FILES.items():
        assert (version(mount) / path).read_bytes() == data
    run_axonfs("pin", SPEC, "--cache", cache)
    linked = Path(run_axonfs("path", SPEC, "--cache", cache).stdout.strip())
    for path, data in FILES.items():
        assert (linked / path).read_bytes() == data


def test_a_file_is_readable_once_it_is_complete(
    start_mount: MountFactory, registry: Path, origin: FaultyOrigin
) -> None:
    """While its package is on its way; one that is not complete has its readers wait."""
    size = len(add_package(registry, SPEC, FILES))
    origin.plan(pause := Pause(), of="/packages/")
    mount = start_mount(origin.url)
    with ThreadPoolExecutor() as pool:
        last = pool.submit((version(mount) / "last.bin").read_bytes)
        assert (version(mount) / "sub/first.bin").read_bytes() == FIRST
        came(mount, size // 2)
        assert not last.done()
        pause.open.set()
        assert last.result(20) == LAST
    assert asked(origin) == 1


@pytest.mark.complains
@pytest.mark.parametrize("sums", [True, False])
def test_what_a_killed_worker_unpacked_of_a_file_is_not_served(
    start_mount: MountFactory, registry: Path, origin: FaultyOrigin, sums: bool
) -> None:
    """It was of a package that is wrong, which the worker had not noticed yet."""
    good, bad = stored(FILES), stored({**FILES, "last.bin": LAST[::-1]})
    add_package(registry, SPEC, FILES, bad, sums=sums, declared=good)
    origin.plan(pause := Pause(), of="/packages/")
    mount = start_mount(origin.url)
    file = version(mount) / "last.bin"
    with ThreadPoolExecutor() as pool:
        reader = pool.submit(file.read_bytes)
        came(mount, 3 * PIECE)
        mount.kill_worker()
        (registry / PATH).write_bytes(good)
        pause.open.set()
        assert reader.result(30) == LAST
    assert file.read_bytes() == LAST


@dataclass(frozen=True)
class Wrong:
    """A model whose package is not what its manifest declares, and what the log says of it."""

    files: dict[str, bytes]
    package: bytes
    declared: bytes
    cause: str


def wrong_packages() -> dict[str, Wrong]:
    """By the model's name, which is in its files: no two share an object."""
    made = {}
    for name in ("notgzip", "short", "lacking", "changed"):
        files = {path: name.encode() + data for path, data in FILES.items()}
        good, last = package_of(files), files["last.bin"]
        came, cause = {
            "notgzip": (b"PK\x03\x04" + good[4:], "it begins with 504b, gzip with 1f8b"),
            "short": (good[:-1000], f"it has {len(good) - 1000} bytes now, not {len(good)}"),
            "lacking": (
                package_of({"config.json": files["config.json"]}),
                "it holds 1 of 3 declared files; 'last.bin' is missing",
            ),
            "changed": (
                package_of({**files, "last.bin": last[::-1]}),
                f"'last.bin' in it has the sha256 {hashlib.sha256(last[::-1]).hexdigest()},"
                f" not {hashlib.sha256(last).hexdigest()}",
            ),
        }[name]
        made[name] = Wrong(files, came, good if name == "short" else came, cause)
    return made


@pytest.mark.complains
def test_a_wrong_package_fails_its_readers_at_once(
    start_mount: MountFactory, registry: Path, origin: FaultyOrigin
) -> None:
    """EIO, with what was declared and what came in the log; it is asked for once, and `install` and
    `verify` exit with 1."""
    bad = wrong_packages()
    for name, made in bad.items():
        spec, path = f"bad/{name}@1.0.0", f"packages/{name}.axon"
        add_package(registry, spec, made.files, made.package, declared=made.declared, path=path)
    mount = start_mount(origin.url)
    for name, made in bad.items():
        file = mount.path / "bad" / name / "1.0.0/last.bin"
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error"):
                file.read_bytes()
        log = mount.log.read_text()
        assert re.search(f"bad/{name}@1.0.0 last.bin: .*{re.escape(made.cause)}", log), log
        assert asked(origin, f"/{name}.axon") == 1
    for command in ("install", "verify"):
        for name in bad:
            spec = f"bad/{name}@1.0.0"
            assert run_axonfs(command, spec, "--cache", mount.cache, check=False).returncode == 1


@pytest.mark.complains
def test_an_open_file_whose_rest_comes_in_a_package(
    start_mount: MountFactory, registry: Path, origin: FaultyOrigin
) -> None:
    """Its reader gets no more of it before the digest matched, though it had some of it before."""
    whole = random.Random(5).randbytes(40 * PIECE + 5)
    wrong = whole[: 10 * PIECE] + bytes(len(whole) - 10 * PIECE)
    add_package(registry, SPEC, {"model.bin": whole}, stored({"model.bin": wrong}))
    digest = hashlib.sha256(whole).hexdigest()
    alone = registry / "objects/sha256" / digest[:2] / digest
    alone.parent.mkdir(parents=True)
    alone.write_bytes(whole)
    mount = start_mount(origin.url)
    with (version(mount) / "model.bin").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for offset in (0, 4096):  # the second one is answered by a native thread
            assert os.pread(file.fileno(), 4096, offset) == whole[offset:][:4096]
        alone.unlink()
        for chunk in (30, 35, 12, 39):
            with pytest.raises(OSError, match="Input/output error"):
                os.pread(file.fileno(), 4096, chunk * PIECE)
