"""moto's server of AWS on loopback: S3 with KMS and requester-pays headers, and STS."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.nginx import free_port
from tests.support.programs import executable, until_listening


@contextlib.contextmanager
def moto(log: Path) -> Iterator[str]:
    """Yields the endpoint of all its services; it verifies no signatures."""
    port = free_port()
    program = executable("moto_server")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "-H", "127.0.0.1", "-p", str(port)], stdout=output, stderr=output
        )
    try:
        until_listening(port, process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
