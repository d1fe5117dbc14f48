"""A real nginx on a free loopback port that serves a directory as it is."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

UP_SECONDS = 20.0
_MAIN = """
daemon off; {user} master_process {master}; worker_processes {workers}; pid {logs}/pid;
error_log {logs}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log {logs}/access.log; sendfile on; tcp_nopush on; keepalive_requests 1000000;
    client_body_temp_path {logs}/b; proxy_temp_path {logs}/p; fastcgi_temp_path {logs}/f;
    uwsgi_temp_path {logs}/u; scgi_temp_path {logs}/s;
    {servers}
}}
"""
_SERVER = "server {{ listen {listen}; root {root}; {listing} }}"
# A registry's page would be shown instead.
_LISTING = "autoindex on; index .none;"


@contextlib.contextmanager
def nginx(root: Path, logs: Path) -> Iterator[str]:
    """Serves `root`, and yields the URL; its configuration and logs lie in `logs`."""
    port = free_port()
    with running(root, logs, f"127.0.0.1:{port}"):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def running(
    root: Path,
    logs: Path,
    listen: str,
    *,
    listing: bool = False,
    within: Sequence[str] = (),
    workers: int = 1,
) -> Iterator[subprocess.Popen[bytes]]:
    """nginx with `listen` as the value of that directive, as a process.

    Args:
        listing: whether directories are listed, also those that have a page.
        within: a command that starts another in a namespace.
        workers: nginx's processes.
    """
    server = _SERVER.format(root=root, listen=listen, listing=_LISTING if listing else "")
    with configured(server, logs, within=within, workers=workers) as process:
        yield process


@contextlib.contextmanager
def configured(
    servers: str, logs: Path, *, within: Sequence[str] = (), workers: int = 1
) -> Iterator[subprocess.Popen[bytes]]:
    """nginx with `servers` in its http block, as a process; other arguments as for `running`."""
    logs.mkdir(parents=True, exist_ok=True)
    config = logs / "nginx.conf"
    several = workers > 1
    # Workers of a master become another user, who cannot read a private directory.
    user = "user root;" if several and os.geteuid() == 0 else ""
    switches = {"master": _switch(several), "user": user}
    config.write_text(_MAIN.format(servers=servers, logs=logs, workers=workers, **switches))
    command = [*within, executable(), "-c", str(config), "-e", str(logs / "error.log")]
    with started(command, logs / "pid", logs / "error.log") as process:
        yield process


@contextlib.contextmanager
def started(command: list[str], pid: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """nginx as a process of `command`, which writes its pid and its errors into these files."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_until_up(process, pid, log)
            yield process
        finally:
            process.terminate()


def _switch(on: bool) -> str:
    return "on" if on else "off"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def executable() -> str:
    # Debian keeps it where an ordinary user's PATH does not look.
    path = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    assert path, "nginx is missing: install nginx-light"
    return path


def _wait_until_up(process: subprocess.Popen[bytes], pid: Path, log: Path) -> None:
    """Wait for the file `pid`, which nginx writes once it listens: that is visible from outside a
    namespace."""
    deadline = time.monotonic() + UP_SECONDS
    while not (pid.exists() and pid.read_text().strip()):
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text() if log.exists() else ""
            raise AssertionError(f"nginx did not start: {said}")
        time.sleep(0.02)  # there is no event for it
