"""The origin: nginx with a registry's directory, plain or TLS, on loopback or behind a line.

nginx shares the cores with the measured programs, so it has one worker for each four of them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.network import Line
from tests.support.nginx import free_port, running
from tests.support.wiring import Authority

WORKERS = max(1, (os.cpu_count() or 1) // 4)
_numbers = itertools.count()


@dataclass(frozen=True)
class Origin:
    """A registry served by nginx; `bundle` is its certificate authority with TLS."""

    url: str
    root: Path
    log: Path
    bundle: Path | None = None

    def requests(self) -> int:
        """The number of requests that nginx has answered."""
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
        """The total size of all objects."""
        return sum(path.stat().st_size for path in self.paths())

    def warm(self) -> None:
        """Read all objects into the page cache, so that no run waits for the origin's disk."""
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
    """Serve `root`; logs are below `work`.

    Args:
        listing: whether nginx lists directories. Peers need that, AxonFS does not.
    """
    logs = work / f"nginx-{next(_numbers)}"
    port = 8080 if line else free_port()
    listen = f"{'0.0.0.0' if line else '127.0.0.1'}:{port}"
    if WORKERS > 1:
        listen += " reuseport"  # the kernel spreads the connections over the workers
    if authority:
        keys = authority.directory
        listen += f" ssl; ssl_certificate {keys}/leaf.pem; ssl_certificate_key {keys}/leaf.key"
    within = line.inside() if line else ()
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            running(root, logs, listen, listing=listing, within=within, workers=WORKERS)
        )
        reached = stack.enter_context(line.reached(port)) if line else port
        host = line.address if line else "127.0.0.1"
        url = f"{'https' if authority else 'http'}://{host}:{reached}"
        yield Origin(url, root, logs / "access.log", authority.bundle if authority else None)
