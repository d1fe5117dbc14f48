"""What stands between a client and an origin: a certificate authority, and a proxy's relay."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path


def relay(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until both sides are done."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=pump, args=(other, one))
    back.start()
    pump(one, other)
    back.join()


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority in `directory`, made with the openssl command."""

    directory: Path

    @property
    def bundle(self) -> Path:
        return self.directory / "ca.pem"

    @classmethod
    def make(cls, directory: Path) -> Authority:
        new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        new += " -addext keyUsage=critical,digitalSignature,keyCertSign"
        _openssl(directory, f"{new} -subj /CN=test-ca -keyout ca.key -out ca.pem")
        san = "-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -CA ca.pem -CAkey ca.key"
        _openssl(directory, f"{new} -subj /CN=localhost {san} -keyout leaf.key -out leaf.pem")
        return cls(directory)

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "leaf.pem", self.directory / "leaf.key")
        return context


def _openssl(directory: Path, arguments: str) -> None:
    command = ["openssl", *arguments.split()]
    subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=60)
