"""A stand-in for MLOS Core: takes what is posted, and answers what it is told to."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.serving import QuietHandler, Served


class Core(Served):
    """On a free loopback port from `with` on; `posted` holds (path, headers, document)."""

    def __init__(self, status: int = 200, answer: bytes = b'{"status": "ok"}') -> None:
        self.posted: list[tuple[str, dict[str, str], Any]] = []
        self.status = status
        self.body = answer

    def handler(self) -> type[BaseHTTPRequestHandler]:
        return _handler(self)


def _handler(core: Core) -> type[BaseHTTPRequestHandler]:
    class Handler(QuietHandler):
        def do_POST(self) -> None:  # noqa: N802
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): text for name, text in self.headers.items()}
            core.posted.append((self.path, headers, json.loads(body)))
            self.answer(core.status, core.body)

    return Handler
