"""Publishes to an object store, signed, and kills itself just before its N-th writing request.

Run as a program: MODEL SPEC URL N; prints a line when it begins.
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
from axonfs.storage import S3Storage
from tests.support.signing import UnverifiedSigner

READS = frozenset({"get_object", "head_object", "list_multipart_uploads", "list_parts"})


class Victim(S3Storage):
    def __init__(self, url: str, number: int) -> None:
        super().__init__(url)
        self._number = number
        self._counter = itertools.count()

    def request(self, operation: str, key: str, **arguments: Any) -> dict[str, Any]:
        if operation not in READS and next(self._counter) == self._number:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().request(operation, key, **arguments)


def main(model: str, spec: str, url: str, number: str) -> None:
    print("begins", flush=True)
    signer = UnverifiedSigner()
    publish(Path(model), parse_spec(spec), Victim(url, int(number)), signer=signer)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
