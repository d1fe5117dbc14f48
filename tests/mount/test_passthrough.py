"""Kernel passthrough on real mounts: when it is used, and every rule of the kernel it must obey."""

from __future__ import annotations

import hashlib
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.mount.conftest import (
    CHUNK,
    FILES,
    MODEL,
    NAME,
    Mount,
    MountFactory,
    object_requests,
    passed_through,
    patched,
    read_and_closed,
    run_axonfs,
    settled,
    source_bytes,
)
from tests.support.registry import RegistryServer, make_model

pytestmark = pytest.mark.mount


def requests_read(mount: Mount) -> int:
    return int(mount.status()["reads"])


def test_complete_files_are_passed_through(mount: Mount, tmp_path: Path) -> None:
    """The kernel itself reads a complete, verified file from the next open on."""
    want = source_bytes(tmp_path, 0, NAME)
    with (mount.path / MODEL).open("rb") as first:
        assert first.read() == want
        assert passed_through(mount) == {MODEL: False}
    settled(lambda: mount.status()["open"] == [])
    before = requests_read(mount)
    with (mount.path / MODEL).open("rb") as again:
        assert passed_through(mount) == {MODEL: True}
        assert again.read() == want
        with mmap.mmap(again.fileno(), 0, prot=mmap.PROT_READ) as mapping:
            assert mapping[:] == want
    assert requests_read(mount) == before
    assert mount.status()["connection"]["why_no_passthrough"] is None


def test_cached_and_passed_through_handles_do_not_mix(mount: Mount, tmp_path: Path) -> None:
    """While a file is open that was opened before it was complete, further opens are handled like
    the first."""
    want = source_bytes(tmp_path, 0, NAME)
    with (mount.path / MODEL).open("rb") as early:
        early.read(1)
        run_axonfs("pin", "nlp/tiny@1.0.0", "--cache", mount.cache)
        with (mount.path / MODEL).open("rb") as late:
            assert passed_through(mount) == {MODEL: False}
            assert late.read() == want
        early.seek(0)
        assert early.read() == want
    settled(lambda: mount.status()["open"] == [])
    with (mount.path / MODEL).open("rb") as alone, (mount.path / MODEL).open("rb") as second:
        assert passed_through(mount) == {MODEL: True}
        assert alone.read() == second.read() == want


@pytest.mark.complains
def test_a_backing_file_that_was_cut_is_not_passed_through(
    registry_dir: Path, registry: RegistryServer, start_mount: MountFactory, tmp_path: Path
) -> None:
    """The kernel would take its end for the file's. The object is in use, under another name."""
    other = parse_spec("nlp/tiny@9.0.0")
    publish(tmp_path / "source0", other, registry_dir, chunk_size=CHUNK)
    mount = start_mount(registry.url)
    want = source_bytes(tmp_path, 0, NAME)
    with (mount.path / MODEL).open("rb") as held:
        assert held.read() == want
        digest = hashlib.sha256(want).hexdigest()
        os.truncate(mount.cache / f"objects/{digest[:2]}/{digest}", 1000)
        assert (mount.path.joinpath(*other.segments) / NAME).read_bytes() == want


def test_a_mapping_keeps_its_backing_file(mount: Mount, tmp_path: Path) -> None:
    """A mapping that outlives its descriptor keeps passthrough for the file."""
    want = source_bytes(tmp_path, 0, NAME)
    read_and_closed(mount)
    with (mount.path / MODEL).open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    assert passed_through(mount) == {MODEL: True}
    run_axonfs("cache", "clean", "--all", "--yes", "--cache", mount.cache)
    assert mapping[:] == want
    mapping.close()


def test_passed_through_files_are_not_evicted(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    """A file with passthrough keeps its bytes while others are evicted."""
    limit = FILES[NAME] + (3 << 20)
    mount = start_mount(registry.url, options=("--cache-size", str(limit)))
    want = source_bytes(tmp_path, 0, NAME)
    read_and_closed(mount)
    with (mount.path / MODEL).open("rb") as file:
        assert passed_through(mount)[MODEL]
        for _ in range(2):
            assert (mount.path / "nlp/tiny/1.1.0" / NAME).read_bytes() == source_bytes(
                tmp_path, 1, NAME
            )
            assert (mount.path / "nlp/org/deep/0.1.0" / NAME).read_bytes() == source_bytes(
                tmp_path, 2, NAME
            )
        before = len(object_requests(registry))
        assert file.read() == want
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
            assert mapping[:] == want
        assert len(object_requests(registry)) == before


def test_switched_off(start_mount: MountFactory, registry: RegistryServer, tmp_path: Path) -> None:
    """With `--no-passthrough` every read goes through the mount."""
    mount = start_mount(registry.url, options=("--no-passthrough",))
    for _ in range(2):
        assert (mount.path / MODEL).read_bytes() == source_bytes(tmp_path, 0, NAME)
    with (mount.path / MODEL).open("rb"):
        assert passed_through(mount) == {MODEL: False}
    assert mount.status()["connection"]["why_no_passthrough"] == "it is switched off"


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (
            "from axonfs.daemon import possessions\n"
            "def refuse(message): raise ValueError('an unknown INIT')\n"
            "possessions.parse_offer = refuse",
            "libfuse made the connection: an unknown INIT",
        ),
        (
            "from axonfs.fuse import openreply\nopenreply.UNAVAILABLE = 'no extension'",
            "no extension",
        ),
        (
            "import glob, importlib.util, os, sys, axonfs\n"
            "sys.setdlopenflags(sys.getdlopenflags() | os.RTLD_GLOBAL)\n"
            "(file,) = glob.glob(axonfs.__path__[0] + '/fuse/_native*.so')\n"
            "spec = importlib.util.spec_from_file_location('axonfs.fuse._native', file)\n"
            "module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)\n"
            "spec.loader.exec_module(module)\n"
            "module.INTERFACE = 1",
            "the extension is of another version of AxonFS (install axonfs again)",
        ),
        (
            "from axonfs.fuse import session\n"
            "def refuse(*_, **__): raise ValueError('no')\n"
            "session.amend = refuse",
            "libfuse made the connection: libfuse does not accept the handshake",
        ),
    ],
)
@pytest.mark.complains
def test_falls_back(
    registry: RegistryServer, start_mount: MountFactory, tmp_path: Path, fault: str, why: str
) -> None:
    """If our own connection or the extension does not work, the mount still does, and says why."""
    mount = start_mount(registry.url, env=patched(tmp_path, fault))
    for _ in range(2):
        assert (mount.path / MODEL).read_bytes() == source_bytes(tmp_path, 0, NAME)
        assert NAME in os.listdir((mount.path / MODEL).parent)
    assert mount.status()["connection"]["why_no_passthrough"] == why
    doctor = run_axonfs("doctor", "--cache", mount.cache, "--registry", registry.url, check=False)
    assert why.rpartition(": ")[2] in doctor.stdout


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        ("", "reads by _native; TLS by _records"),
        (
            "from axonfs.fuse import openreply\nopenreply.UNAVAILABLE = 'no compiler'\n"
            "from axonfs.http_client import channel\nchannel._unavailable = 'no OpenSSL'",
            "reads by Python: no compiler; TLS by Python: no OpenSSL",
        ),
    ],
)
def test_what_the_extensions_do(
    registry: RegistryServer, start_mount: MountFactory, tmp_path: Path, fault: str, shown: str
) -> None:
    """`status` and `doctor` say it in the same words."""
    mount = start_mount(registry.url, env=patched(tmp_path, fault))
    assert f"extensions: {shown}\n" in run_axonfs("status", mount.path).stdout
    doctor = run_axonfs("doctor", "--cache", mount.cache, "--registry", registry.url, check=False)
    assert f"; {shown}" in doctor.stdout
    assert "extensions: reads by _native; TLS by _records" in doctor.stdout  # of the command itself


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--no-passthrough",)])
def test_many_processes_open_map_and_evict(
    start_mount: MountFactory, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Opening, reading, mapping and evicting the same files from many processes never gives EIO."""
    pairs, registry = _models(tmp_path, models=12, size=2 << 20)
    with RegistryServer(registry) as server:
        mount = start_mount(server.url, options=("--cache-size", str(9 << 20), *options))
        readers = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.mount.reader", "40", str(seed)]
                + [f"{mount.path / path}={digest}" for path, digest in pairs],
                stderr=subprocess.PIPE,
                text=True,
            )
            for seed in range(6)
        ]
        complaints = [process.communicate(timeout=200)[1] for process in readers]
        assert [process.returncode for process in readers] == [0] * 6, complaints
        assert mount.status()["connection"]["passed_through"] == 0
        assert server.bytes_sent > 2 * 12 * (2 << 20)  # so there was eviction


def _models(tmp_path: Path, *, models: int, size: int) -> tuple[list[tuple[str, str]], Path]:
    """(path, sha256) of one file each of some models, and their registry."""
    pairs, registry = [], tmp_path / "many"
    for number in range(models):
        directory = make_model(tmp_path / f"many{number}", {"weights": size}, seed=number)
        publish(directory, parse_spec(f"many/m{number}@1.0.0"), registry)
        digest = hashlib.sha256((directory / "weights").read_bytes()).hexdigest()
        pairs.append((f"many/m{number}/1.0.0/weights", digest))
    return pairs, registry
