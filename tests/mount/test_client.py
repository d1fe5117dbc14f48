"""`axonfs.Client` beside a real mount: the mount does the work, and files are read through it."""

from __future__ import annotations

import hashlib
import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import axonfs
from axonfs import errors
from axonfs.client.file import CachedFile, MountedFile
from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.mount.conftest import CHUNK, FILES, Mount, MountFactory, source_bytes
from tests.support.locks import wait_until_free
from tests.support.registry import RegistryServer

pytestmark = pytest.mark.mount
SPEC = "nlp/tiny@1.0.0"
NAME = "model.safetensors"


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXONFS_CONFIG", str(tmp_path / "none.yaml"))


def test_the_mount_answers(mount: Mount) -> None:
    with axonfs.Client(cache=mount.cache) as client:
        status = client.status()
        assert (status.mountpoint, status.cache) == (mount.path, mount.cache)
        assert status.pid is not None
        assert [item.spec for item in client.search("deep")] == ["nlp/org/deep@0.1.0"]
        assert client.versions("nlp/tiny").latest == "1.1.0"
        found = client.info("nlp/tiny@^1")
        assert found.spec == "nlp/tiny@1.1.0"
        assert found.path == mount.path / "nlp/tiny/1.1.0"
        assert client.path("nlp/tiny", mounted=True) == found.path
        assert client.path(SPEC, NAME, mounted=True).stat().st_size == FILES[NAME]
        with pytest.raises(errors.NotFoundError, match="no such version"):
            client.path("nlp/tiny@9", mounted=True)
        seen: list[axonfs.Progress] = []
        pinned = client.pin(SPEC, progress=seen.append)
        assert pinned.path == mount.path / "nlp/tiny/1.0.0"
        assert seen[-1].done == seen[-1].total == pinned.size
        assert client.status().pins == 1
        assert client.path(SPEC, NAME) == mount.cache / "pinned" / SPEC / NAME


def test_files_are_read_through_the_mount(mount: Mount, tmp_path: Path) -> None:
    expected = source_bytes(tmp_path, 0, NAME)
    with axonfs.Client(cache=mount.cache) as client:
        with client.open(SPEC, NAME) as file:
            file.seek(2 * CHUNK + 7)
            assert file.read(10) == expected[2 * CHUNK + 7 :][:10]
            assert 0 < mount.fetched() < len(expected)
            file.seek(0)
            assert file.read() == expected
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            assert view[-100:] == expected[-100:]
            view.close()
        with client.open("nlp/tiny@^1", "vocab.txt") as file:
            assert file.read() == source_bytes(tmp_path, 1, "vocab.txt")
        with client.open("nlp/tiny", "sub/part.bin", buffering=0) as raw:
            assert isinstance(raw, MountedFile)
            buffer = bytearray(CHUNK + 1)
            assert raw.readinto(buffer) == len(buffer)
            assert buffer == source_bytes(tmp_path, 1, "sub/part.bin")
        for path, match in (("nope", "no such file"), ("sub", "it is a directory")):
            with pytest.raises(errors.NotFoundError, match=match):
                client.open(SPEC, path)
        with pytest.raises(errors.NotFoundError, match="no such version"):
            client.open("nlp/tiny@9", NAME)
        left = client.open(SPEC, NAME)
    with pytest.raises(ValueError, match="closed"):
        left.read()


def test_a_forked_process_reads_through_the_mount(mount: Mount, tmp_path: Path) -> None:
    """With files open as well: an ordinary file may be inherited."""
    code = (
        "import hashlib, os, sys, axonfs\n"
        "client = axonfs.Client(cache=sys.argv[1])\n"
        "file = client.open('nlp/tiny@1.0.0', 'model.safetensors')\n"
        "if (child := os.fork()) == 0:\n"
        "    print(hashlib.sha256(file.read()).hexdigest(), client.info('nlp/tiny').version)\n"
        "    sys.stdout.flush()\n"
        "    os._exit(0)\n"
        "sys.exit(os.waitpid(child, 0)[1])\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(mount.cache)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    digest = hashlib.sha256(source_bytes(tmp_path, 0, NAME)).hexdigest()
    assert done.stdout == f"{digest} 1.1.0\n"


def test_a_client_with_registries_of_its_own_reads_what_only_they_have(
    mount: Mount, tmp_path: Path
) -> None:
    source = tmp_path / "extra"
    source.mkdir()
    (source / "a.bin").write_bytes(b"extra" * 1000)
    publish(source, parse_spec("nlp/extra@1.0.0"), tmp_path / "other")
    with (
        RegistryServer(tmp_path / "other") as other,
        axonfs.Client(registries=other.url, cache=mount.cache) as client,
        client.open("nlp/extra@1.0.0", "a.bin") as file,
    ):
        assert isinstance(file.raw, MountedFile)
        assert file.read() == b"extra" * 1000


def test_a_client_that_outlives_a_mount_goes_on_without_it(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    """And the next mount takes the cache, once the client has no file open."""
    expected = source_bytes(tmp_path, 0, NAME)
    mount = start_mount(registry.url)
    with axonfs.Client(registries=registry.url, cache=mount.cache) as client:
        with client.open(SPEC, NAME) as file:
            assert isinstance(file.raw, MountedFile)
            assert file.read(10) == expected[:10]
        mount.stop()
        assert client.status().mountpoint is None
        with client.open(SPEC, NAME) as file:
            assert isinstance(file.raw, CachedFile)
            assert file.read() == expected
        wait_until_free(mount.cache)
        again = start_mount(registry.url)
        with client.open(SPEC, NAME) as file:
            assert isinstance(file.raw, MountedFile)
            assert file.read() == expected
        assert client.status().mountpoint == again.path


@pytest.mark.complains
def test_a_client_goes_on_without_a_mount_that_died(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    mount = start_mount(registry.url)
    with axonfs.Client(registries=registry.url, cache=mount.cache) as client:
        client.open(SPEC, NAME).close()
        pid = client.status().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)  # the kernel's mount is left, and answers ENOTCONN
        wait_until_free(mount.cache)
        with client.open(SPEC, NAME) as file:
            assert file.read() == source_bytes(tmp_path, 0, NAME)


@pytest.mark.complains
def test_a_file_that_cannot_be_opened_says_why(
    start_mount: MountFactory, registry: RegistryServer
) -> None:
    """The errno of the mount is EIO; its own error has the cause."""
    mount = start_mount("http://127.0.0.1:9", env={"AXONFS_RETRIES": "0"})
    with (
        axonfs.Client(cache=mount.cache) as client,
        pytest.raises(errors.UnavailableError, match="Connection refused"),
    ):
        client.open(SPEC, NAME)


@pytest.mark.complains
def test_a_read_that_fails_names_the_file(
    start_mount: MountFactory, registry_dir: Path, registry: RegistryServer
) -> None:
    mount = start_mount(registry.url, env={"AXONFS_DEADLINE": "1"})
    sizes = {path: path.stat().st_size for path in (registry_dir / "objects").rglob("*")}
    for path in (path for path, size in sizes.items() if path.is_file() and size == FILES[NAME]):
        path.chmod(0o644)
        path.write_bytes(bytes(FILES[NAME]))
    with axonfs.Client(cache=mount.cache) as client, client.open(SPEC, NAME) as file:
        with pytest.raises(errors.ReadError, match="cannot be read: Input/output error") as caught:
            file.read(10)
        assert (caught.value.spec, caught.value.path) == (SPEC, NAME)
        assert caught.value.errno == 5
        assert isinstance(caught.value, OSError)
        assert any("wrong digest" in text for text in client.status().failures)


def test_another_user_s_mount_is_read(
    start_mount: MountFactory, registry: RegistryServer, open_path: None, open_to_users: None
) -> None:
    """Root's mount with --allow-other, by a user without a cache or a registry of their own."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    mount = start_mount(registry.url, options=("--allow-other",))
    code = (
        "import os, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "os.environ.update(HOME='/nonexistent', AXONFS_CONFIG='/nonexistent/config.yaml')\n"
        "import axonfs\n"
        "from axonfs import errors\n"
        "with axonfs.Client() as client:\n"
        "    with client.open('nlp/tiny@1.0.0', 'vocab.txt') as file:\n"
        "        print(len(file.read()), file.raw.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == f"{FILES['vocab.txt']} {mount.path}/nlp/tiny/1.0.0/vocab.txt\n", done
