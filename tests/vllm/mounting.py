"""A registry and a mount of it, made with the commands that a user types."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vllm.ports import free_port
from tests.vllm.serving import answers

READY_SECONDS = 30.0


def axonfs(*arguments: str | Path) -> str:
    """Run an axonfs command and return its standard output; it must succeed."""
    command = ["axonfs", *map(str, arguments)]
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Mount:
    """A mount with a cold cache of its own."""

    path: Path

    def version(self, spec: str) -> Path:
        """The directory of `namespace/name@version`."""
        name, version = spec.split("@")
        return self.path / name / version

    def status(self) -> dict[str, Any]:
        """What `axonfs status --json` says."""
        status: dict[str, Any] = json.loads(axonfs("status", self.path, "--json"))
        return status


@contextlib.contextmanager
def registry_serving(registry: Path, log: Path) -> Iterator[str]:
    """Serve a registry with the built-in server; yields its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["axonfs", "registry", "serve", str(registry), "--port", str(port)]
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            wait_for(f"{url}/api/v1/index.json", server, log)
            yield url
        finally:
            server.terminate()
            server.wait(30)


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return once `url` answers, fail with the log if it never will."""
    deadline = time.monotonic() + READY_SECONDS
    while not answers(url):
        assert server.poll() is None, f"the registry server ended:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"no answer from {url}:\n{log.read_text()}"
        time.sleep(0.05)


@contextlib.contextmanager
def mounted(registry: str, scratch: Path) -> Iterator[Mount]:
    """Mount a registry in the background, as `axonfs mount` does by default."""
    path = scratch / "models"
    path.mkdir()
    axonfs("mount", path, "--registry", registry, "--cache", scratch / "cache")
    try:
        yield Mount(path)
    finally:
        axonfs("umount", path)
