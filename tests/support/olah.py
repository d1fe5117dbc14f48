"""olah, a server of the Hugging Face API that this project did not write, in its two ways.

It mirrors git repositories with LFS on its own disk, and it stands before another hub and caches.
Its environment is the one that tools/test names in AXONFS_TEST_HUB.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.hub import pointer, sha256

READY_SECONDS = 60.0


def hub_python() -> Path:
    """The Python that has olah and huggingface_hub."""
    value = os.environ.get("AXONFS_TEST_HUB")
    if value is None:
        pytest.skip("AXONFS_TEST_HUB is not set; tools/test sets the environment up and sets it")
    return Path(value)


@contextlib.contextmanager
def olah(directory: Path, *, mirrors: Path | None = None, before: str = "") -> Iterator[str]:
    """The URL of a running olah.

    Args:
        mirrors: serve the repositories in `mirrors`/models alone, sending nothing.
        before: else the URL of the hub that it stands before.
    """
    directory.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    basic = {
        "host": '"127.0.0.1"',
        "port": str(port),
        "repos-path": f'"{directory}/repos"',
        "mirrors-path": f'["{mirrors}"]' if mirrors else "[]",
        "hf-scheme": '"http"',
        "hf-netloc": f'"{before.removeprefix("http://")}"',
    }
    lines = [f"{key} = {value}" for key, value in basic.items()]
    offline = str(mirrors is not None).lower()
    config = directory / "olah.toml"
    config.write_text("\n".join(["[basic]", *lines, "[accessibility]", f"offline = {offline}", ""]))
    command = [str(hub_python().parent / "olah-cli"), "-c", str(config)]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
    try:
        _wait(process, port, directory / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


def git_repository(
    directory: Path, commits: list[tuple[Mapping[str, bytes], str | None]], large: frozenset[str]
) -> list[str]:
    """A repository as git-lfs leaves it, of these files and tags; returns the commits' ids."""
    directory.mkdir(parents=True)
    _git(directory, "init", "--quiet", "--initial-branch=main")
    ids = []
    for files, tag in commits:
        _git(directory, "rm", "-r", "--quiet", "--ignore-unmatch", ".")
        for path, body in files.items():
            _write(directory, path, body, path in large)
        _git(directory, "add", "--all")
        _git(directory, "commit", "--quiet", "--message", "files")
        ids.append(_git(directory, "rev-parse", "HEAD").strip())
        if tag:
            _git(directory, "tag", tag)
    return ids


def _write(directory: Path, path: str, body: bytes, large: bool) -> None:
    file = directory / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pointer(body) if large else body)
    if large:
        digest = sha256(body)
        stored = directory / ".git/lfs/objects" / digest[:2] / digest[2:4] / digest
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_bytes(body)


def _git(directory: Path, *args: str) -> str:
    who = ["-c", "user.name=tests", "-c", "user.email=tests@example.org"]
    # The user's own settings (hooks, filters, signing) are not this repository's.
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    command = ["git", "-C", str(directory), *who, *args]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
