"""docs/semantics.md, the bytes: what is fetched, checked, kept and served, on a real mount."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.mount.conftest import (
    CHUNK,
    FILES,
    Mount,
    MountFactory,
    object_requests,
    run_axonfs,
    source_bytes,
)
from tests.support.registry import RegistryServer, make_model

pytestmark = pytest.mark.mount

WEIGHTS = "nlp/tiny/1.0.0/model.safetensors"


def object_path(registry_dir: Path, data: bytes) -> Path:
    digest = hashlib.sha256(data).hexdigest()
    return registry_dir / "objects/sha256" / digest[:2] / digest


def flip(path: Path, offset: int) -> None:
    """One wrong bit in a published object."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_metadata_fetches_nothing(mount: Mount, registry: RegistryServer) -> None:
    """Listing and stat fetch no bytes of files."""
    for folder, _, files in os.walk(mount.path):
        for name in files:
            os.stat(os.path.join(folder, name))
    assert object_requests(registry) == []


@pytest.mark.parametrize("options", [(), ("--no-passthrough",)])
def test_small_files(start_mount: MountFactory, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Files of no byte, of one, and of one more than a chunk have all their bytes, whether the
    worker that opened them answers or the next one."""
    sizes = {"empty": 0, "one": 1, "more": CHUNK + 1}
    make_model(tmp_path / "source", sizes)
    publish(tmp_path / "source", parse_spec("nlp/small@1.0.0"), tmp_path / "registry")
    with RegistryServer(tmp_path / "registry") as server:
        mount = start_mount(server.url, options=options)
        for _ in range(2):
            for name, size in sizes.items():
                with (mount.path / "nlp/small/1.0.0" / name).open("rb", buffering=0) as file:
                    data = file.read(size + 1)
                    assert data == (tmp_path / "source" / name).read_bytes()
                    assert os.pread(file.fileno(), 10, size) == b""
        path = mount.path / "nlp/small/1.0.0/empty"
        with path.open("rb", buffering=0) as file:
            mount.process.send_signal(signal.SIGHUP)
            assert file.read() == path.read_bytes() == b""


def test_ten_bytes(mount: Mount, registry: RegistryServer, tmp_path: Path) -> None:
    """Reading ten bytes fetches only the chunk that has them."""
    with (mount.path / WEIGHTS).open("rb", buffering=0) as file:
        file.seek(2 * CHUNK + 500_000)
        data = file.read(10)
    whole = source_bytes(tmp_path, 0, "model.safetensors")
    assert data == whole[2 * CHUNK + 500_000 :][:10]
    assert mount.fetched() == CHUNK
    assert len(object_requests(registry)) == 1


def test_fetched_once(
    mount: Mount, registry: RegistryServer, start_mount: MountFactory, tmp_path: Path
) -> None:
    """A byte is fetched only once while it is cached, also over remounts."""
    whole = source_bytes(tmp_path, 0, "model.safetensors")
    assert (mount.path / WEIGHTS).read_bytes() == whole
    assert mount.fetched() == len(whole)
    mount.kill()
    again = start_mount(registry.url)
    assert (again.path / WEIGHTS).read_bytes() == whole
    assert again.fetched() == 0
    (again.path / "nlp/tiny/1.0.0/vocab.txt").read_bytes()
    assert again.fetched() == FILES["vocab.txt"]


def test_shared_request(mount: Mount, registry: RegistryServer, tmp_path: Path) -> None:
    """Readers of the same chunk share one request."""
    start = threading.Barrier(16)

    def read(_: int) -> bytes:
        fd = os.open(mount.path / WEIGHTS, os.O_RDONLY | os.O_DIRECT)
        try:
            buffer = mmap.mmap(-1, 4096)
            start.wait()
            os.preadv(fd, [buffer], 3 * CHUNK)
            return buffer[:]
        finally:
            os.close(fd)

    with ThreadPoolExecutor(16) as pool:
        answers = set(pool.map(read, range(16)))
    whole = source_bytes(tmp_path, 0, "model.safetensors")
    assert answers == {whole[3 * CHUNK :][:4096]}
    assert len(object_requests(registry)) == 1


def test_ten_readers(start_mount: MountFactory, tmp_path: Path) -> None:
    """Ten readers of ten files all make progress."""
    source = tmp_path / "ten"
    make_model(source, {f"part{number}.bin": 3 * CHUNK for number in range(10)}, seed=5)
    publish(source, parse_spec("nlp/ten@1.0.0"), tmp_path / "registry-ten", chunk_size=CHUNK)
    with RegistryServer(tmp_path / "registry-ten") as server:
        mount = start_mount(server.url)
        started = threading.Barrier(10)

        def read(number: int) -> bool:
            name = f"part{number}.bin"
            with (mount.path / "nlp/ten/1.0.0" / name).open("rb", buffering=0) as file:
                data = bytearray(file.read(1))
                started.wait(30)  # no reader goes on before every reader has its first byte
                data += file.read()
            return bytes(data) == (source / name).read_bytes()

        with ThreadPoolExecutor(10) as pool:
            assert all(pool.map(read, range(10)))


@pytest.mark.complains
def test_verified_before_read(mount: Mount, registry_dir: Path, tmp_path: Path) -> None:
    """No byte reaches a reader before its chunk has matched the chunk table."""
    whole = source_bytes(tmp_path, 0, "model.safetensors")
    flip(object_path(registry_dir, whole), 2 * CHUNK + 7)
    fd = os.open(mount.path / WEIGHTS, os.O_RDONLY)
    try:
        assert os.pread(fd, CHUNK, CHUNK) == whole[CHUNK : 2 * CHUNK]
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(fd, 4096, 2 * CHUNK + 8192)
        assert os.pread(fd, CHUNK, 4 * CHUNK) == whole[4 * CHUNK : 5 * CHUNK]
    finally:
        os.close(fd)


@pytest.mark.complains
def test_corrupt_chunk(
    mount: Mount, registry: RegistryServer, registry_dir: Path, tmp_path: Path
) -> None:
    """A chunk that never matches gives EIO and a log line that names the model, the file and the
    source."""
    flip(object_path(registry_dir, source_bytes(tmp_path, 0, "vocab.txt")), 5)
    with pytest.raises(OSError, match="Input/output") as caught:
        (mount.path / "nlp/tiny/1.0.0/vocab.txt").read_bytes()
    assert caught.value.errno == errno.EIO
    (line,) = [text for text in mount.complaints() if "EIO" in text]
    for part in ("nlp/tiny@1.0.0", "vocab.txt", registry.url, "digest"):
        assert part in line
    assert "vocab.txt" in mount.status()["failures"][0]["message"]


def without_tables(registry_dir: Path, version: str) -> None:
    """A manifest as an Axon registry has it: sha256 alone."""
    path = registry_dir / f"api/v1/models/nlp/tiny/{version}/manifest.yaml"
    document = yaml.safe_load(path.read_text())
    for file in document["spec"]["format"]["files"]:
        file.pop("chunks", None)
    path.write_text(yaml.safe_dump(document))


@pytest.mark.complains
def test_whole_digest(
    registry: RegistryServer, registry_dir: Path, start_mount: MountFactory, tmp_path: Path
) -> None:
    """An object without a chunk table is checked by sha256 when it is complete; on a mismatch it is
    dropped, gives EIO and is not served again."""
    without_tables(registry_dir, "1.0.0")
    without_tables(registry_dir, "1.1.0")
    flip(object_path(registry_dir, source_bytes(tmp_path, 0, "model.safetensors")), 5 * CHUNK)
    mount = start_mount(registry.url)
    good = source_bytes(tmp_path, 1, "model.safetensors")
    assert (mount.path / "nlp/tiny/1.1.0/model.safetensors").read_bytes() == good
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            (mount.path / WEIGHTS).read_bytes()
    mount.stop()
    again = start_mount(registry.url)
    with pytest.raises(OSError, match="Input/output"), (again.path / WEIGHTS).open("rb") as file:
        file.read(10)
    assert again.fetched() == 0


def test_short_at_end(mount: Mount) -> None:
    """Reads are short only at the end of a file."""
    size = FILES["model.safetensors"]
    fd = os.open(mount.path / WEIGHTS, os.O_RDONLY)
    try:
        assert len(os.pread(fd, 3 * CHUNK, 17)) == 3 * CHUNK
        assert len(os.pread(fd, CHUNK, size - 100)) == 100
        assert os.pread(fd, CHUNK, size) == b""
        assert os.pread(fd, CHUNK, size + CHUNK) == b""
    finally:
        os.close(fd)


def mapped_digests(path: Path) -> list[str]:
    """Read through private and shared mappings, in a process of its own: a page fault keeps the
    interpreter lock, which the registry's thread in this one needs."""
    program = """
import hashlib, mmap, sys
with open(sys.argv[1], "rb") as file:
    for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
        with mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ) as mapped:
            print(hashlib.sha256(mapped).hexdigest())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_ways_to_read(mount: Mount, tmp_path: Path) -> None:
    """`mmap`, `O_DIRECT`, `sendfile` and positioned reads give the same bytes as `read`."""
    whole = source_bytes(tmp_path, 0, "model.safetensors")
    path = mount.path / WEIGHTS
    assert mapped_digests(path) == [hashlib.sha256(whole).hexdigest()] * 2
    direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
    plain = os.open(path, os.O_RDONLY)
    out = os.open(tmp_path / "copy", os.O_CREAT | os.O_RDWR)
    try:
        buffer = mmap.mmap(-1, 6 * CHUNK)
        assert os.preadv(direct, [buffer], 0) == len(whole)
        assert buffer[: len(whole)] == whole
        offsets = range(len(whole) - 5000, 0, -300_001)
        assert [os.pread(plain, 5000, at) for at in offsets] == [
            whole[at : at + 5000] for at in offsets
        ]
        sent = 0
        while count := os.sendfile(out, plain, sent, 1 << 20):
            sent += count
    finally:
        for fd in (direct, plain, out):
            os.close(fd)
    assert (tmp_path / "copy").read_bytes() == whole


def pieces(fd: int) -> Iterator[bytes]:
    while data := os.read(fd, CHUNK):
        yield data


@pytest.mark.complains
def test_registry_down(registry_dir: Path, start_mount: MountFactory, tmp_path: Path) -> None:
    """While the registry is down cached bytes are read, and others give an errno within the
    deadline."""
    config = tmp_path / "config.yaml"
    config.write_text("deadline: 2\n")
    with RegistryServer(registry_dir) as server:
        mount = start_mount(server.url, env={"AXONFS_CONFIG": str(config)})
        assert (mount.path / WEIGHTS).read_bytes()
    assert (mount.path / WEIGHTS).read_bytes() == source_bytes(tmp_path, 0, "model.safetensors")
    assert "tiny" in os.listdir(mount.path / "nlp")
    with pytest.raises(OSError, match=r".") as caught:
        (mount.path / "nlp/tiny/1.0.0/vocab.txt").read_bytes()
    assert caught.value.errno in (errno.EIO, errno.ETIMEDOUT)
    assert any("vocab.txt" in line and server.url in line for line in mount.complaints())


@pytest.mark.complains
def test_offline(
    mount: Mount, registry: RegistryServer, start_mount: MountFactory, tmp_path: Path
) -> None:
    """With `--offline` no requests are sent, and bytes that are not local give ENETUNREACH."""
    (mount.path / WEIGHTS).read_bytes()
    mount.stop()
    sent = len(registry.requests)
    offline = start_mount(registry.url, options=("--offline",))
    assert (offline.path / WEIGHTS).read_bytes() == source_bytes(tmp_path, 0, "model.safetensors")
    assert "1.0.0" in os.listdir(offline.path / "nlp/tiny")
    with pytest.raises(OSError, match="unreachable") as caught:
        (offline.path / "nlp/tiny/1.0.0/vocab.txt").read_bytes()
    assert caught.value.errno == errno.ENETUNREACH
    assert len(registry.requests) == sent


def test_evicted_while_open(registry_dir: Path, start_mount: MountFactory, tmp_path: Path) -> None:
    """A file that is evicted while it is open is fetched again, and its reader does not notice."""
    big = tmp_path / "big"
    make_model(big, {"a.bin": 24 * CHUNK, "b.bin": 24 * CHUNK}, seed=3)
    publish(big, parse_spec("nlp/big@1.0.0"), registry_dir, chunk_size=CHUNK)
    with RegistryServer(registry_dir) as server:
        mount = start_mount(server.url, options=("--cache-size", "16M"))
        files = [mount.path / "nlp/big/1.0.0" / name for name in ("a.bin", "b.bin")]
        for _ in range(2):
            for file in files:
                fd = os.open(file, os.O_RDONLY)
                try:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                    data = b"".join(pieces(fd))
                finally:
                    os.close(fd)
                assert data == (big / file.name).read_bytes()
        assert mount.status()["fetch"]["bytes"] > 2 * 24 * CHUNK
        deadline = time.monotonic() + 10
        # The limit, and what was in flight over it; eviction goes on when the files are closed.
        while mount.status()["cache_used"] > 24 << 20:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert run_axonfs("status", "--json", "--cache", mount.cache).returncode == 0
