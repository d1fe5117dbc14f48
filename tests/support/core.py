"""A stand-in for MLOS Core: takes what is posted, and answers what it is told to."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Core:
    """On a free loopback port from `with` on; `posted` holds (path, headers, document)."""

    def __init__(self, status: int = 200, answer: bytes = b'{"status": "ok"}') -> None:
        self.posted: list[tuple[str, dict[str, str], Any]] = []
        self.status = status
        self.body = answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(core: Core) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): text for name, text in self.headers.items()}
            core.posted.append((self.path, headers, json.loads(body)))
            self.send_response(core.status)
            self.send_header("Content-Length", str(len(core.body)))
            self.end_headers()
            self.wfile.write(core.body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
