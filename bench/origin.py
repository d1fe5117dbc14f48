"""The origin: nginx over a registry's directory, plain or TLS, on loopback or behind a line.

One worker, as it comes: the origin shares the cores with whoever is measured.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.network import Line
from tests.support.nginx import executable
from tests.support.wiring import Authority

CONFIG = """
daemon off; master_process off; worker_processes 1; pid {logs}/pid;
error_log {logs}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log {logs}/access.log; sendfile on; tcp_nopush on; keepalive_requests 1000000;
    client_body_temp_path {logs}/b; proxy_temp_path {logs}/p; fastcgi_temp_path {logs}/f;
    uwsgi_temp_path {logs}/u; scgi_temp_path {logs}/s;
    server {{ listen {address}:{port}{tls}; root {root}; autoindex {listing}; }}
}}
"""
UP_SECONDS = 20.0
_numbers = itertools.count()


@dataclass(frozen=True)
class Origin:
    """A registry that nginx serves; `bundle` is the authority to trust where it speaks TLS."""

    url: str
    root: Path
    log: Path
    bundle: Path | None = None

    def requests(self) -> int:
        """How many requests nginx has answered."""
        return len(self.log.read_bytes().splitlines())

    def paths(self) -> list[Path]:
        """The object files, in the order of their digests."""
        return sorted(self.root.glob("objects/sha256/*/*"))

    def objects(self) -> list[tuple[str, int]]:
        """URL and size of every object, the largest first."""
        found = [
            (f"{self.url}/{path.relative_to(self.root)}", path.stat().st_size)
            for path in self.paths()
        ]
        return sorted(found, key=lambda item: (-item[1], item[0]))

    def bytes(self) -> int:
        """Of all objects together."""
        return sum(path.stat().st_size for path in self.paths())

    def warm(self) -> None:
        """Have all of it in the page cache, so that no run waits for the origin's disk."""
        for path in self.paths():
            subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"], check=True)


@contextlib.contextmanager
def serving(
    root: Path,
    work: Path,
    *,
    authority: Authority | None = None,
    line: Line | None = None,
    listing: bool = False,
) -> Iterator[Origin]:
    """Serve `root`; logs lie below `work`.

    Args:
        listing: whether directories are listed, which peers need and AxonFS does not.
    """
    logs = work / f"nginx-{next(_numbers)}"
    logs.mkdir()
    port = 8080 if line else _free_port()
    address = "0.0.0.0" if line else "127.0.0.1"
    config = logs / "nginx.conf"
    tls = ""
    if authority:
        keys = authority.directory
        tls = f" ssl; ssl_certificate {keys}/leaf.pem; ssl_certificate_key {keys}/leaf.key"
    on = "on" if listing else "off"
    config.write_text(
        CONFIG.format(root=root, logs=logs, port=port, address=address, tls=tls, listing=on)
    )
    command = [*(line.inside() if line else ()), executable(), "-c", str(config)]
    command += ["-e", str(logs / "error.log")]
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        stack.callback(process.terminate)
        _wait_until_up(process, logs)
        reached = stack.enter_context(line.reached(port)) if line else port
        host = line.address if line else "127.0.0.1"
        url = f"{'https' if authority else 'http'}://{host}:{reached}"
        yield Origin(url, root, logs / "access.log", authority.bundle if authority else None)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def _wait_until_up(process: subprocess.Popen[bytes], logs: Path) -> None:
    """nginx writes its pid once it listens; from outside a namespace nothing else tells."""
    deadline = time.monotonic() + UP_SECONDS
    while not ((logs / "pid").exists() and (logs / "pid").read_text().strip()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"nginx did not start: {(logs / 'error.log').read_text()}")
        time.sleep(0.02)
