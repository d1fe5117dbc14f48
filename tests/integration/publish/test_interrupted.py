"""Ctrl-C during a publish to a store that does not answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.registry import make_model
from tests.support.seaweed import NO_AWS


class SilentStore(ThreadingHTTPServer):
    """An empty bucket of a store that never answers once it has got an object."""

    daemon_threads = True

    def __init__(self) -> None:
        self.got = threading.Event()
        self.ending = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: SilentStore

    def do_HEAD(self) -> None:
        self._answer(404, b"")

    def do_GET(self) -> None:
        listing = "list-type" in self.path
        self._answer(200 if listing else 404, b"<ListBucketResult/>" if listing else b"")

    def do_PUT(self) -> None:
        if "/objects/" in self.path:
            self.server.got.set()
            self.server.ending.wait()
        self._answer(412, b"")  # the file that tells of conditional writes is there

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def store() -> Iterator[SilentStore]:
    with SilentStore() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.ending.set()
        server.shutdown()
        thread.join()


def test_an_interrupt_ends_a_publish_that_waits_for_its_store(
    store: SilentStore, tmp_path: Path
) -> None:
    url = f"s3://models/reg?endpoint_url=http://127.0.0.1:{store.server_address[1]}"
    model = make_model(tmp_path / "model", {"a": 1000})
    command = [sys.executable, "-m", "axonfs", "publish", str(model), "nlp/tiny@1", "--to", url]
    keys = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret"}
    process = subprocess.Popen(
        command, env={**os.environ, **NO_AWS, **keys}, stderr=subprocess.PIPE, text=True
    )
    try:
        assert store.got.wait(60)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)  # a request may wait for minutes
    finally:
        process.kill()
    assert process.returncode == 130
    assert "nlp/tiny@1: interrupted before it was published" in said
    assert "Traceback" not in said
