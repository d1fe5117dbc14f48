"""Publishes with a signature, and kills itself just before its N-th change of the file system.

Ends with status 3 if it opens anything to write that a reader could reach: a write may be torn.

Run as a program: MODEL SPEC REGISTRY N; prints a line when it begins. Audit events stand right
before the system call, in whichever thread makes it, so a test can stop a publisher at each of
its steps in turn.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from pathlib import Path
from typing import Any

from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.support.signing import UnverifiedSigner

CHANGES = frozenset({"os.rename", "os.link", "os.remove", "os.mkdir", "os.truncate"})


def watch(registry: str, number: int) -> None:
    """Have this process kill itself before its change of the file system with this number."""
    counter = itertools.count()
    private = (f"{registry}/objects/tmp/", f"{registry}/.axonfs.lock")

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR):
            path = str(args[0])
            if path.startswith(registry) and not path.startswith(private):
                os._exit(3)
        if event in CHANGES and next(counter) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)


def main(model: str, spec: str, registry: str, number: str) -> None:
    watch(registry, int(number))
    print("begins", flush=True)
    signer = UnverifiedSigner()
    publish(Path(model), parse_spec(spec), Path(registry), chunk_size=64 << 10, signer=signer)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
