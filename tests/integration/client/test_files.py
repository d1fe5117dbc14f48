"""Files that `Client.open` gives where nothing is mounted: they behave as Python's own."""

from __future__ import annotations

import errno
import gc
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

import axonfs
from axonfs import errors
from axonfs.client.direct import FrozenFile
from axonfs.client.file import CachedFile
from tests.integration.client.conftest import MakeClient
from tests.support.hub import HubServer, Repo
from tests.support.registry import CONFIG, SPEC, RegistryServer, published

MIB = 1 << 20
NAME = "model.safetensors"


@pytest.fixture
def plain(weights: bytes, tmp_path: Path) -> Iterator[io.BufferedReader]:
    """The same file as Python opens it."""
    with (tmp_path / "models/nlp/tiny/1.0.0" / NAME).open("rb") as file:
        yield file


def test_a_file_reads_as_python_s_own(client: axonfs.Client, plain: io.BufferedReader) -> None:
    with client.open(SPEC, NAME) as file:
        size = plain.seek(0, os.SEEK_END)
        assert file.seek(0, os.SEEK_END) == size
        for offset, whence in ((0, 0), (-100, 2), (MIB - 7, 0), (size + 5, 0), (size, 0), (9, 1)):
            assert file.seek(offset, whence) == plain.seek(offset, whence)
            assert file.tell() == plain.tell()
            assert file.read(1000) == plain.read(1000)
        assert file.seek(1) == plain.seek(1)
        assert file.read() == plain.read()
        assert file.read() == plain.read() == b""
        assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
        assert not file.isatty()
        assert file.mode == "rb"
        with pytest.raises(OSError, match="Invalid argument"):
            file.seek(-1)
        with pytest.raises(ValueError, match="whence"):
            file.seek(0, 5)


def test_a_raw_file_reads_as_python_s_own(client: axonfs.Client, weights: bytes) -> None:
    with client.open(SPEC, NAME, buffering=0) as file:
        assert isinstance(file, CachedFile)
        buffer = bytearray(2 * MIB + 1)
        assert file.readinto(buffer) == len(buffer)
        assert buffer == weights[: len(buffer)]
        assert file.readinto(memoryview(bytearray(10)).cast("H")) == 10
        assert file.readall() == weights[len(buffer) + 10 :]
        assert file.readinto(buffer) == 0
        assert file.readall() == b""
        assert file.seek(5) == 5
        assert file.read(None) == weights[5:]
        with pytest.raises(TypeError, match="float"):
            file.seek(1.5)  # type: ignore[arg-type]
        with pytest.raises(OSError, match="Invalid argument"):
            file.seek(-1)
        for refused in (partial(file.write, b"x"), partial(file.truncate, 0), file.fileno):
            with pytest.raises(io.UnsupportedOperation):
                refused()


def test_reading_ten_bytes_fetches_the_chunk_they_are_in(
    client: axonfs.Client, registry: RegistryServer, weights: bytes
) -> None:
    with client.open(SPEC, NAME, buffering=0) as file:
        before = registry.bytes_sent
        file.seek(2 * MIB + 5)
        assert file.read(10) == weights[2 * MIB + 5 :][:10]
    assert registry.bytes_sent - before < MIB + 65536
    assert client.info(SPEC).local == MIB


def test_text_and_small_files_of_a_version(client: axonfs.Client) -> None:
    with client.open("nlp/tiny", "config.json") as file:
        assert io.TextIOWrapper(file).read() == CONFIG.decode()
    with client.open("nlp/tiny@^1", "manifest.yaml") as file:
        assert b"name: tiny" in file.read()
        assert file.read() == b""


@pytest.mark.parametrize("own", ["manifest.yaml", "manifest.yaml/part"])
def test_a_repository_s_own_manifest_yaml_is_shown(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: str
) -> None:
    repo = Repo("acme/tiny")
    repo.commit({"config.json": b"{}", own: b"the repository's"})
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with HubServer(repo) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        client = make_client(registries=())
        with client.open("hf/acme/tiny", own) as file:
            assert file.read() == b"the repository's"
        client.pin("hf/acme/tiny")
        linked = client.path("hf/acme/tiny")
    found = [str(path.relative_to(linked)) for path in linked.rglob("*") if path.is_file()]
    assert sorted(found) == ["config.json", own]
    assert (linked / own).read_bytes() == b"the repository's"


@pytest.mark.parametrize("path", ["nope", "../tiny", "", "/etc/passwd", "config.json/x", "a\0"])
def test_what_is_no_file_of_the_version_is_not_found(client: axonfs.Client, path: str) -> None:
    with pytest.raises(errors.NotFoundError, match="no such file"):
        client.open(SPEC, path)


def test_a_whole_file_is_read_in_the_caller_s_thread(client: axonfs.Client, weights: bytes) -> None:
    client.pin(SPEC)
    with client.open(SPEC, NAME, buffering=0) as file:
        assert isinstance(file, CachedFile)
        direct = file._opened.direct
        assert isinstance(direct, FrozenFile)
        number = int(direct._descriptor)
        del direct
        assert os.fstat(number).st_size == len(weights)
        assert file.readall() == weights
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_a_whole_file_is_read_without_a_descriptor_of_its_own(
    client: axonfs.Client, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shortage(descriptor: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    client.pin(SPEC)
    with monkeypatch.context() as patch:
        patch.setattr(os, "dup", shortage)
        file = client.open(SPEC, NAME, buffering=0)
    with file:
        assert isinstance(file, CachedFile)
        assert file._opened.direct is None
        assert file.readall() == weights


def test_a_path_may_be_a_path(client: axonfs.Client) -> None:
    with client.open(SPEC, Path("config.json")) as file:
        assert file.read() == CONFIG


def test_an_invalid_buffering_opens_nothing(client: axonfs.Client) -> None:
    with pytest.raises(TypeError):
        client.open(SPEC, NAME, buffering=cast(Any, "r"))
    assert not client._files


def test_a_closed_file_is_closed(client: axonfs.Client) -> None:
    file = client.open(SPEC, NAME)
    raw = file.raw
    file.close()
    file.close()
    assert file.closed
    assert raw.closed
    for call in (file.read, file.tell, partial(file.seek, 0), partial(raw.read, 1), raw.readable):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_a_client_closes_its_files(make_client: MakeClient) -> None:
    with make_client() as client:
        file = client.open(SPEC, NAME)
    assert file.closed
    with pytest.raises(ValueError, match="closed"):
        file.read()


@pytest.mark.parametrize("buffering", [0, -1])
def test_a_file_that_is_not_closed_warns_and_is_let_go(
    client: axonfs.Client, buffering: int
) -> None:
    file = client.open(SPEC, NAME, buffering=buffering)
    raw = getattr(file, "raw", file)
    assert isinstance(raw, CachedFile)
    session = raw._session
    assert session.leases == 1
    last = [file]
    del file, raw
    with pytest.warns(ResourceWarning, match="unclosed file"):
        last.clear()
    gc.collect()
    assert session.leases == 0


def test_threads_that_share_a_file_get_each_byte_once(
    client: axonfs.Client, weights: bytes
) -> None:
    for buffering in (0, -1):
        pieces: list[bytes] = []
        with client.open(SPEC, NAME, buffering=buffering) as file:

            def read() -> None:
                while piece := file.read(10_000):
                    pieces.append(piece)  # noqa: B023

            threads = [threading.Thread(target=read) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sum(map(len, pieces)) == len(weights)
        cut = [weights[at : at + 10_000] for at in range(0, len(weights), 10_000)]
        assert sorted(pieces) == sorted(cut)


def test_bytes_that_no_source_gives_raise_what_readers_expect(
    make_client: MakeClient, registry: RegistryServer, tmp_path: Path
) -> None:
    client = make_client(deadline=1)
    with client.open(SPEC, NAME) as file:
        objects = tmp_path / "registry/objects"
        sizes = {path: path.stat().st_size for path in objects.rglob("*") if path.is_file()}
        found = max(sizes, key=lambda path: sizes[path])
        raw = bytearray(found.read_bytes())
        raw[5] ^= 1
        found.chmod(0o644)
        found.write_bytes(raw)
        with pytest.raises(errors.ReadError, match="wrong digest") as caught:
            file.read(10)
        assert isinstance(caught.value, OSError)
        assert isinstance(caught.value, errors.AxonError)
        assert (caught.value.spec, caught.value.path) == (SPEC, NAME)
        assert caught.value.errno == 5
        assert isinstance(caught.value.__cause__, errors.CorruptError)
        assert file.tell() == 0
        file.seek(MIB)
        assert len(file.read(10)) == 10


def test_files_stay_open_while_the_session_would_be_idle(
    client: axonfs.Client, weights: bytes
) -> None:
    with client.open(SPEC, NAME) as file:
        time.sleep(2.5 * axonfs.client.session.LINGER)
        assert file.read() == weights


def in_child(work: Callable[[], object]) -> int:
    """The exit code of a forked process that does `work`."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    code = process.exitcode
    assert code is not None
    return code


forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@forks
def test_a_forked_process_uses_the_client(client: axonfs.Client, weights: bytes) -> None:
    with client.open(SPEC, NAME) as file:
        assert file.read() == weights

    def read() -> None:
        with client.open(SPEC, NAME) as own:
            assert own.read() == weights
        assert client.info(SPEC).local >= len(weights)

    assert in_child(read) == 0
    read()


@forks
def test_a_process_forked_from_one_with_open_files_says_so(
    client: axonfs.Client, weights: bytes
) -> None:
    def never(seconds: float) -> None:
        raise AssertionError(seconds)

    def fail() -> None:
        with pytest.raises(errors.ReadError, match="forked while its parent had files") as caught:
            file.read()
        assert isinstance(caught.value.__cause__, errors.BusyError)
        cast(Any, time).sleep = never  # waiting does not help
        for call in (client.info, client.path):
            with pytest.raises(errors.BusyError, match="forked while"):
                call(SPEC)
        file.close()

    with client.open(SPEC, NAME) as file:
        assert in_child(fail) == 0
        assert file.read() == weights
    assert client.pin(SPEC).files == 3


SCRIPT = """
import sys, axonfs
client = axonfs.Client(registries=sys.argv[1], cache=sys.argv[2], deadline=600)
file = client.open("nlp/tiny@1.0.0", "model.safetensors", buffering=0)
buffer = bytearray(1 << 20)
print("reading", flush=True)
try:
    file.readinto(buffer)
except KeyboardInterrupt:
    print("interrupted", file.tell(), flush=True)
sys.stdin.readline()
print(file.readinto(buffer), file.tell())
client.close()
"""


class HeldServer(RegistryServer):
    """Sends no large body until `gate` is set."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.asked, self.gate = threading.Event(), threading.Event()

    def sent(self, count: int) -> None:
        if count >= MIB:
            self.asked.set()
            assert self.gate.wait(60)
        super().sent(count)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[HeldServer]:
    with HeldServer(published(tmp_path)) as server:
        yield server
        server.gate.set()


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_a_read_and_no_more(held: HeldServer, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, held.url, str(tmp_path / "cache")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "reading\n"
        assert held.asked.wait(20)
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "interrupted 0\n"
        held.gate.set()
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == f"{MIB} {MIB}\n"
    assert child.returncode == 0
