"""ModelScope as the real one answers, on a loopback origin; written from its client's requests."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.hub import Repo, sha256
from tests.support.serving import Served

DATE = 1_700_000_000


class ModelScopeServer(Served):
    """One repository, in a thread, from `with` on.

    A file's last change is the commit that first had it as it is now.
    """

    def __init__(self, repo: Repo, token: str | None = None) -> None:
        self.repo = repo
        self.token = token
        self.requests: list[tuple[str, Mapping[str, str]]] = []
        self.altered: dict[str, bytes] = {}

    def handler(self) -> type[BaseHTTPRequestHandler]:
        class Bound(_Handler):
            hub = self

        return Bound

    def files(self, commit: str) -> list[dict[str, Any]]:
        files = self.repo.commits[commit]
        folders = {path.rpartition("/")[0] for path in files if "/" in path}
        listed: list[dict[str, Any]] = [
            {"Name": path, "Path": path, "Type": "tree", "Size": 0} for path in sorted(folders)
        ]
        for path, body in files.items():
            number, changed = self._changed(commit, path)
            listed.append(
                {
                    "CommitMessage": "files",
                    "CommittedDate": DATE + number,
                    "CommitterName": "acme",
                    "InCheck": False,
                    "IsLFS": path in self.repo.large,
                    "Mode": "33188",
                    "Name": path.rpartition("/")[2],
                    "Path": path,
                    "Revision": changed,
                    "Sha256": sha256(body),
                    "Size": len(body),
                    "Type": "blob",
                }
            )
        return listed

    def _changed(self, commit: str, path: str) -> tuple[int, str]:
        history = list(self.repo.commits)[: list(self.repo.commits).index(commit) + 1]
        body = self.repo.commits[commit][path]
        number = len(history) - 1
        while number and self.repo.commits[history[number - 1]].get(path) == body:
            number -= 1
        return number, history[number]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ModelScopeServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Silence."""

    def do_GET(self) -> None:
        headers = {name.lower(): text for name, text in self.headers.items()}
        self.hub.requests.append((self.path, headers))
        with contextlib.suppress(ConnectionError):
            self.answer(headers)

    def answer(self, headers: Mapping[str, str]) -> None:
        parts, repo = urlsplit(self.path), self.hub.repo
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if self.hub.token and headers.get("authorization") != f"Bearer {self.hub.token}":
            return self.json(403, {"Code": 10010205001, "Message": "no access", "Success": False})
        if parts.path == "/openapi/v1/models":
            hits = [{"id": repo.id, "downloads": 42, "license": "mit", "tags": ["llm"]}]
            found = hits if query["search"] in repo.id else []
            return self.json(200, {"success": True, "data": {"models": found}})
        root = f"/api/v1/models/{repo.id}"
        if not parts.path.startswith(root):
            return self.json(404, {"Code": 10010205001, "Message": "not found", "Success": False})
        if parts.path == root:
            about = {"License": "mit", "Downloads": 42, "Stars": 7, "Tags": ["llm"]}
            return self.json(200, {"Code": 200, "Data": about, "Success": True})
        commit = repo.resolve(query["Revision"])
        if commit is None:
            return self.json(404, {"Code": 10010101003, "Message": "none", "Success": False})
        if parts.path == f"{root}/repo/files":
            data = {"Files": self.hub.files(commit)}
            return self.json(200, {"Code": 200, "Data": data, "Success": True})
        path = query["FilePath"]
        return self.ranged(self.hub.altered.get(path, repo.commits[commit][path]))

    def json(self, status: int, value: object) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def ranged(self, body: bytes) -> None:
        text = self.headers.get("Range")
        if text is None:
            return self.send(200, body, {})
        first, _, last = text.removeprefix("bytes=").partition("-")
        piece = body[int(first) : int(last) + 1]
        where = f"bytes {first}-{int(first) + len(piece) - 1}/{len(body)}"
        return self.send(206, piece, {"Content-Range": where})

    def send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, text in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)
