"""A server that takes uploads, and its publisher, which kill themselves just before a write.

Run as a program. Each line of standard input starts a child, which is forked, so that the many
rounds of a test cost no start of Python:

    server REGISTRY TOKENS N          prints its URL and pid; dies before its N-th change of files
    client MODEL SPEC URL TOKEN N     publishes, signed; dies before its N-th request that writes

When the child has ended, its exit status is printed: negative for a signal. SIGTERM ends a server.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from axonfs.http_client import Limits
from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.serve import Access, RegistryServer, Tokens, WritingHandler
from axonfs.storage import HttpStorage
from tests.chaos.publish_victim import watch
from tests.support.signing import UnverifiedSigner

LIMITS = Limits(attempts=2, backoff_min=0.01, backoff_max=0.02)


class Victim(HttpStorage):
    def __init__(self, url: str, token: str, number: int) -> None:
        super().__init__(url, token, LIMITS)
        self._number = number
        self._counter = itertools.count()

    def _send(self, method: str, key: str, *args: Any, **more: Any) -> Any:
        if method in ("PUT", "POST") and next(self._counter) == self._number:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._send(method, key, *args, **more)


def client(model: str, spec: str, url: str, token: str, number: str) -> None:
    storage = Victim(url, token, int(number))
    publish(Path(model), parse_spec(spec), storage, signer=UnverifiedSigner())  # type: ignore[arg-type]


def server(registry: str, tokens: str, number: str) -> None:
    access = Access(Tokens(Path(tokens)))
    made = RegistryServer(Path(registry), "127.0.0.1", 0, WritingHandler, access=access)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    watch(registry, int(number))
    threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
    print(made.url, os.getpid(), flush=True)
    signal.pause()


def main() -> None:
    for line in sys.stdin:
        role, *arguments = line.split()
        child = os.fork()
        if not child:
            (server if role == "server" else client)(*arguments)
            sys.stdout.flush()
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
