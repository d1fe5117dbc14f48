"""The embedded server with TLS: who can connect, and what happens when a certificate is renewed."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.errors import UsageError
from axonfs.serve import Certificate, RegistryHandler, RegistryServer
from tests.integration.serve.test_serve import MANIFEST, object_of, registry
from tests.support.wiring import Authority

__all__ = ["registry"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


@contextlib.contextmanager
def running(registry: Path, certificate: Certificate) -> Iterator[RegistryServer]:
    server = RegistryServer(registry, "127.0.0.1", 0, RegistryHandler, certificate=certificate)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


def pair(authority: Authority) -> tuple[Path, Path]:
    return authority.directory / "leaf.pem", authority.directory / "leaf.key"


def connect(
    server: RegistryServer, authority: Authority, version: ssl.TLSVersion | None = None
) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(authority.bundle))
    if version:
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = context.maximum_version = version
        context.set_ciphers("DEFAULT@SECLEVEL=0")
    sock = socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=10)
    return context.wrap_socket(sock, server_hostname="localhost")


def get(sock: ssl.SSLSocket, path: str, extra: str = "") -> bytes:
    sock.sendall(f"GET {path} HTTP/1.0\r\n{extra}\r\n".encode())
    with sock.makefile("rb") as file:
        return file.read()


def test_whole_objects_and_ranges_come_over_tls(registry: Path, authority: Authority) -> None:
    path, data = object_of(registry)
    with running(registry, Certificate(*pair(authority))) as server:
        assert server.url.startswith("https://127.0.0.1:")
        for extra, expected in (
            ("", data),
            ("Range: bytes=1000000-2999999\r\n", data[10**6 : 3 * 10**6]),
        ):
            with connect(server, authority) as sock:
                assert get(sock, path, extra).endswith(b"\r\n\r\n" + expected)


def test_versions_before_1_2_are_refused(registry: Path, authority: Authority) -> None:
    with running(registry, Certificate(*pair(authority))) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connect(server, authority, ssl.TLSVersion.TLSv1_1)
        with connect(server, authority) as sock:
            assert sock.version() == "TLSv1.3"


def test_a_client_without_tls_does_not_delay_others(registry: Path, authority: Authority) -> None:
    with (
        running(registry, Certificate(*pair(authority))) as server,
        socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=10) as silent,
    ):
        with connect(server, authority) as sock:
            assert get(sock, MANIFEST).startswith(b"HTTP/1.1 200 ")
        silent.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with silent.makefile("rb") as file:
            answer = file.read()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b"\r\n\r\n400 this port speaks https only\n")


def test_a_renewed_certificate_is_used_once_both_files_fit(
    registry: Path, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also the connections of before go on."""
    cert, key = (Path(shutil.copy(path, tmp_path)) for path in pair(authority))
    (tmp_path / "new").mkdir()
    renewed = Authority.make(tmp_path / "new")
    with running(registry, Certificate(cert, key)) as server, connect(server, authority) as old:
        os.replace(renewed.directory / "leaf.pem", cert)
        server.reload()
        wait_until(lambda: "does not belong to the certificate" in caplog.text)
        connect(server, authority).close()
        caplog.set_level(logging.INFO)
        os.replace(renewed.directory / "leaf.key", key)  # is noticed without a signal
        wait_until(lambda: "is loaded again" in caplog.text)
        connect(server, renewed).close()
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(server, authority)
        assert get(old, MANIFEST).startswith(b"HTTP/1.1 200 ")


def test_the_command_loads_a_certificate_again_on_a_signal(
    registry: Path, authority: Authority
) -> None:
    cert, key = pair(authority)
    command = [sys.executable, "-m", "axonfs", "registry", "serve", str(registry)]
    command += ["--port", "0", "--cert", str(cert), "--key", str(key)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as serving:
        assert serving.stdout
        assert serving.stderr
        assert serving.stdout.readline().startswith("serving https://127.0.0.1:")
        serving.send_signal(signal.SIGHUP)
        assert serving.stderr.readline().startswith("the certificate is loaded again from ")
        serving.terminate()
        assert serving.wait() == 0


def wait_until(holds: object) -> None:
    assert callable(holds)
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_files_that_are_no_pair_are_refused(authority: Authority, tmp_path: Path) -> None:
    cert, key = pair(authority)
    encrypted = tmp_path / "encrypted.key"
    command = ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:secret"]
    subprocess.run([*command, "-out", str(encrypted)], check=True)
    for pem, secret, said in (
        (tmp_path / "none", key, "cannot read the file: No such file"),
        (cert, tmp_path / "none", "cannot read the file: No such file"),
        (cert, authority.directory / "ca.key", "the key does not belong to the certificate in"),
        (key, cert, "this pair of files is not a certificate and its key in PEM form"),
        (cert, encrypted, "the key is encrypted"),
    ):
        with pytest.raises(UsageError, match=said):
            Certificate(pem, secret)
