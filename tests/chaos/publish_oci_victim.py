"""Publishes to an OCI registry, and kills itself just before its N-th request that writes.

Run as a program: MODEL REFERENCE PIECE N; prints a line when it begins. PIECE is the size of a
piece in bytes.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from pathlib import Path
from typing import Any

from axonfs.http_client import Calls, Said
from axonfs.oci import reference_of, uploads
from axonfs.publish import publish_oci


def kill_before(number: int) -> None:
    """Have this process end before its write with this number."""
    real, counter = Calls.send, itertools.count()

    def send(calls: Calls, method: str, *more: Any, **named: Any) -> Said:
        if method not in ("GET", "HEAD") and next(counter) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(calls, method, *more, **named)

    Calls.send = send  # type: ignore[method-assign,assignment]


def main(model: str, reference: str, piece: str, number: str) -> None:
    print("begins", flush=True)
    uploads.PIECE = int(piece)
    kill_before(int(number))
    publish_oci(Path(model), reference_of(reference), move=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
