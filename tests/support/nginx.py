"""A real nginx on a free loopback port that serves a directory as it is."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

CONFIG = """
daemon off; master_process off; worker_processes 1; pid {scratch}/pid;
error_log {scratch}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log {scratch}/access.log; sendfile on; tcp_nopush on; keepalive_requests 100000;
    client_body_temp_path {scratch}/b; proxy_temp_path {scratch}/p; fastcgi_temp_path {scratch}/f;
    uwsgi_temp_path {scratch}/u; scgi_temp_path {scratch}/s;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def executable() -> str:
    # Debian keeps it where an ordinary user's PATH does not look.
    path = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    assert path, "nginx is missing: install nginx-light"
    return path


@contextlib.contextmanager
def nginx(root: Path, scratch: Path) -> Iterator[str]:
    """Serves `root`, and yields the URL; its configuration and logs lie in `scratch`."""
    scratch.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = scratch / "nginx.conf"
    config.write_text(CONFIG.format(root=root, scratch=scratch, port=port))
    command = [executable(), "-c", str(config), "-e", str(scratch / "error.log")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_until_up(process, port, scratch)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait_until_up(process: subprocess.Popen[bytes], port: int, scratch: Path) -> None:
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.02)  # nginx tells nobody when it listens
    log = scratch / "error.log"
    raise AssertionError(f"nginx did not start: {log.read_text() if log.exists() else ''}")
