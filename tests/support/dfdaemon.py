"""A test double of Dragonfly's dfdaemon: no Dragonfly, but what its proxy's documentation says.

Played, as d7y.io and the comments of dragonfly-client's proxy describe it (2.4, client 1.x):

* A GET with `X-Dragonfly-Use-P2P: true` becomes a task; every other request is passed on.
* A task's id is the sha256 of `X-Dragonfly-Content-For-Calculating-Task-ID`, else of the URL and
  the piece length.
* A task has pieces of `X-Dragonfly-Piece-Length` (4 MiB or more), else of a length by the file's
  size. A range takes the pieces that it touches, each as a whole; `X-Dragonfly-Prefetch: true`,
  or the configuration's prefetch without that header, takes the whole file.
* A piece that any peer of the swarm has comes from there, any other one from the source.
* It is asked as a proxy, by CONNECT with a certificate of its own, or as a mirror of the URL in
  `X-Dragonfly-Registry`, else of a configured one.
* An error of the source is passed on with its headers, and with `X-Dragonfly-Error-Type: backend`.

Not played: schedulers, seed peers, limits, the disk, and one peer's reading from another while a
piece still comes.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import urljoin, urlsplit

from tests.support.serving import QuietHandler, Served
from tests.support.wiring import Authority

MIB = 1 << 20
LEAST_PIECE, LARGEST_PIECE, PIECES = 4 * MIB, 64 * MIB, 500
REDIRECTS = (301, 302, 303, 307, 308)
_HOP = {"host", "connection", "proxy-connection", "proxy-authorization", "keep-alive"}
_CREDENTIALS = {"authorization", "cookie"}


@dataclass
class Task:
    """One file in the swarm."""

    piece: int
    size: int
    headers: Mapping[str, str]
    pieces: dict[int, bytes] = field(default_factory=dict)


@dataclass
class Swarm:
    """What the peers have together, and what they asked the sources for."""

    tasks: dict[str, Task] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class RefusedError(Exception):
    """The source's answer to a task is an error."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


def task_id(url: str, headers: Mapping[str, str]) -> str:
    """The id of a task; header names are in lower case."""
    content = headers.get("x-dragonfly-content-for-calculating-task-id")
    if content is None:
        content = url.partition("?")[0] + headers.get("x-dragonfly-piece-length", "")
    return hashlib.sha256(content.encode()).hexdigest()


def piece_length(headers: Mapping[str, str], size: int) -> int:
    """
    Raises:
        ValueError: it is shorter than dfdaemon allows.
    """
    asked = headers.get("x-dragonfly-piece-length")
    if asked is None:
        fitting = 1 << max(size // PIECES - 1, 0).bit_length()
        return min(max(fitting, LEAST_PIECE), LARGEST_PIECE)
    if (length := int(asked.removesuffix("mib")) * MIB) < LEAST_PIECE:
        raise ValueError(asked)
    return length


class Dfdaemon(Served):
    """One peer, as a proxy on a loopback port.

    Args:
        mirror: what it is the mirror of, where a request does not say so.
        authority: whose certificate it shows within CONNECT, and whom it trusts.
    """

    def __init__(
        self,
        swarm: Swarm,
        *,
        mirror: str | None = None,
        prefetch: bool = False,
        authority: Authority | None = None,
    ) -> None:
        self.swarm, self.mirror, self.prefetch = swarm, mirror, prefetch
        self.authority = authority
        self.seen: list[tuple[str, Mapping[str, str]]] = []

    def handler(self) -> type[BaseHTTPRequestHandler]:
        return type("Handler", (_Handler,), {"peer": self})

    def ask(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Ask the source, and follow its redirects without credentials to other hosts."""
        self.swarm.asked.append(url)
        at = urlsplit(url)
        connection = self._connect(at.scheme, at.netloc)
        try:
            connection.request("GET", url.partition(at.netloc)[2] or "/", headers=dict(headers))
            got = connection.getresponse()
            lower = {name.lower(): value for name, value in got.getheaders()}
            answer = Answer(got.status, lower, got.read())
        finally:
            connection.close()
        if answer.status not in REDIRECTS:
            return answer
        there = urljoin(url, answer.headers["location"])
        same = urlsplit(there).netloc == at.netloc
        kept = {name: value for name, value in headers.items() if same or name not in _CREDENTIALS}
        return self.ask(there, kept)

    def _connect(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        if scheme == "http":
            return http.client.HTTPConnection(netloc, timeout=30)
        bundle = self.authority.bundle if self.authority else None
        trust = ssl.create_default_context(cafile=bundle)
        return http.client.HTTPSConnection(netloc, timeout=30, context=trust)

    def part(self, url: str, headers: Mapping[str, str]) -> Answer:
        """A task's answer to a request.

        Raises:
            RefusedError: the source refuses.
            ValueError: the pieces are too short.
        """
        name = task_id(url, headers)
        own = {key: value for key, value in headers.items() if key not in ("range", *_HOP)}
        with self.swarm.lock:
            task = self.swarm.tasks.get(name) or self._begun(url, own)
            self.swarm.tasks[name] = task
            start, stop = _range(headers.get("range"), task.size)
            self._bring(task, url, own, (0, task.size) if self._all(headers) else (start, stop))
        first = start // task.piece
        body = b"".join(task.pieces[at] for at in range(first, -(-stop // task.piece)))
        more = {"x-dragonfly-task-id": name}
        if "range" not in headers:
            return Answer(200, {**task.headers, **more}, body)
        more["content-range"] = f"bytes {start}-{stop - 1}/{task.size}"
        return Answer(
            206, {**task.headers, **more}, body[start - first * task.piece :][: stop - start]
        )

    def _all(self, headers: Mapping[str, str]) -> bool:
        asked = headers.get("x-dragonfly-prefetch")
        return "range" in headers and (self.prefetch if asked is None else asked == "true")

    def _begun(self, url: str, headers: Mapping[str, str]) -> Task:
        found = _accepted(self.ask(url, {**headers, "range": "bytes=0-0"}))
        size = int(found.headers["content-range"].rpartition("/")[2])
        gone = {"content-range", "content-length", "connection", "date", "server"}
        kept = {name: value for name, value in found.headers.items() if name not in gone}
        return Task(piece_length(headers, size), size, kept)

    def _bring(
        self, task: Task, url: str, headers: Mapping[str, str], part: tuple[int, int]
    ) -> None:
        for number in range(part[0] // task.piece, -(-part[1] // task.piece)):
            if number not in task.pieces:
                start = number * task.piece
                end = min(start + task.piece, task.size) - 1
                asked = {**headers, "range": f"bytes={start}-{end}"}
                task.pieces[number] = _accepted(self.ask(url, asked)).body


def _accepted(answer: Answer) -> Answer:
    if answer.status not in (200, 206):
        raise RefusedError(answer)
    return answer


def _range(text: str | None, size: int) -> tuple[int, int]:
    if text is None:
        return 0, size
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", text)
    assert found, text
    return int(found[1]), min(int(found[2] or size) + 1, size)


class _Handler(QuietHandler):
    peer: Dfdaemon
    protocol_version = "HTTP/1.1"
    inside = ""  # what CONNECT named

    def do_CONNECT(self) -> None:  # noqa: N802
        assert self.peer.authority, "this double has no certificate"
        self.inside = f"https://{self.path}".removesuffix(":443")
        self.send_response(200)
        self.end_headers()
        self.connection = self.peer.authority.server_context().wrap_socket(
            self.connection, server_side=True
        )
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.close_connection = False

    def finish(self) -> None:
        super().finish()
        if self.inside:
            self.connection.close()

    def do_GET(self) -> None:  # noqa: N802
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.peer.seen.append((self.path, headers))
        try:
            answer = self._answer(self._url(headers), headers)
        except RefusedError as exc:
            passed = {**exc.answer.headers, "x-dragonfly-error-type": "backend"}
            answer = Answer(exc.answer.status, passed, b"")
        except ValueError:
            answer = Answer(500, {"x-dragonfly-error-type": "proxy"}, b"")
        self._send(answer)

    def _url(self, headers: Mapping[str, str]) -> str:
        if not self.path.startswith("/"):
            return self.path
        return (
            self.inside or headers.get("x-dragonfly-registry") or self.peer.mirror or ""
        ) + self.path

    def _answer(self, url: str, headers: Mapping[str, str]) -> Answer:
        if headers.get("x-dragonfly-use-p2p") == "true":
            return self.peer.part(url, headers)
        kept = {name: value for name, value in headers.items() if name not in _HOP}
        return self.peer.ask(url, kept)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)
