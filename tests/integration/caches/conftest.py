"""Each engine of packaging/caches as a real program, before a source that counts its requests."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

import pytest

from axonfs.http_client.caches import SLICE
from tests.support.serving import QuietHandler, Served
from tests.support.sitecaches import ENGINES

BODY = random.Random(19).randbytes(2 * SLICE + SLICE // 2)
TOKEN = "Bearer right"


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that reached the source or its storage."""

    path: str
    headers: Mapping[str, str]


class Source(Served):
    """A registry, a hub and a private place in one, that sends BODY in ranges."""

    def __init__(self, storage: str = "", pause: float = 0.0) -> None:
        self.seen: list[Seen] = []
        self.storage, self.pause = storage, pause
        self.signatures = 0
        self.body = BODY

    def paths(self, start: str = "") -> list[str]:
        return [seen.path for seen in self.seen if seen.path.startswith(start)]

    def handler(self) -> type[BaseHTTPRequestHandler]:
        source = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:  # noqa: N802
                headers = {name.lower(): value for name, value in self.headers.items()}
                source.seen.append(Seen(self.path, headers))
                time.sleep(source.pause)
                self.respond(self.path.split("/")[1].partition("?")[0])

            do_HEAD = do_GET  # noqa: N815

            def respond(self, kind: str) -> None:
                match kind:
                    case "hub":
                        source.signatures += 1
                        self.redirect(f"{source.storage}/signed?signature={source.signatures}")
                    case "renamed":
                        self.redirect("/hub/new-name")
                    case "away":
                        self.redirect(f"{source.url.replace('127.0.0.1', 'localhost')}/objects/a")
                    case "private" if self.headers["Authorization"] != TOKEN:
                        self.answer(401, b"who are you?")
                    case "busy":
                        self.say(429, {"Retry-After": "7"}, b"")
                    case "missing":
                        self.answer(404, b"")
                    case "documents":
                        self.say(200, {"Cache-Control": "no-cache"}, f"{len(source.seen)}".encode())
                    case _:
                        self.part()

            def redirect(self, where: str) -> None:
                self.say(302, {"Location": where, "Cache-Control": "no-store"}, b"")

            def part(self) -> None:
                keep = {"Cache-Control": "public, max-age=31536000", "ETag": f'"{self.path}"'}
                asked = self.headers["Range"]
                if asked is None:
                    self.say(200, keep, source.body)
                    return
                first, last = asked.removeprefix("bytes=").split("-")
                end = min(int(last or len(source.body)) + 1, len(source.body))
                keep["Content-Range"] = f"bytes {first}-{end - 1}/{len(source.body)}"
                self.say(206, keep, source.body[int(first) : end])

            def say(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        return Handler


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Engine:
    """A running cache before a source and its storage."""

    name: str
    url: str
    source: Source
    storage: Source
    digests: Iterator[int] = field(default_factory=lambda: iter(range(1, 1000)))

    def digest(self) -> str:
        """One that this cache has not seen."""
        return f"sha256:{next(self.digests):064x}"

    def get(self, path: str, **headers: str) -> Answer:
        at = urlsplit(self.url)
        connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=30)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET", path, headers=named)
            answer = connection.getresponse()
            got = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, got, answer.read())
        finally:
            connection.close()

    def part(self, path: str, digest: str, start: int, stop: int, **more: str) -> Answer:
        asked = f"bytes={start}-{stop - 1}"
        return self.get(path, Range=asked, Axonfs_Object=digest, **more)

    def all_at_once(self, many: int, path: str, **headers: str) -> list[Answer]:
        """The same request, from as many readers at the same time."""
        together = threading.Barrier(many)

        def one(_: int) -> Answer:
            together.wait()
            return self.get(path, **headers)

        with ThreadPoolExecutor(many) as pool:
            return list(pool.map(one, range(many)))


@pytest.fixture(scope="module", params=ENGINES)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    home = tmp_path_factory.mktemp("engine") / request.param
    more = {}
    with Source() as storage, Source(storage.url, pause=0.05) as source:
        if request.param == "nginx":
            more["STORAGE"] = storage.url
        with ENGINES[request.param](source.url, home, **more) as url:
            yield Engine(request.param, url, source, storage)
