"""The Hugging Face Hub as the real one answers, on two loopback origins: the Hub and its storage.

Written from what the real Hub sends (fields, pages, error codes, headers, redirects), so that its
own client can be pointed at it as well. Bytes of large files are behind signed URLs on the second
origin, which can be made to expire. Each request takes the next fault of `plan`, if it has one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http.server import BaseHTTPRequestHandler
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.support.serving import PatientServer

DATE = "2025-07-26T03:46:27.000Z"
DATE_SECONDS = 1753501587.0
TOKEN = "hf_aSecretOfTheTests"
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@lru_cache(64)  # each request asks for digests of the same few bodies, some of 25 MB
def git_oid(body: bytes) -> str:
    """The git blob id of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


@lru_cache(64)
def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def pointer(body: bytes) -> bytes:
    """What git itself stores of a file in LFS."""
    head = "version https://git-lfs.github.com/spec/v1"
    return f"{head}\noid sha256:{sha256(body)}\nsize {len(body)}\n".encode()


@dataclass
class Repo:
    """A repository: commits, oldest first, with all their files."""

    id: str
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    large: frozenset[str] = frozenset()  # in LFS
    gated: str | bool = False
    private: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def tagged(
        cls,
        files: Mapping[str, bytes],
        large: frozenset[str],
        *,
        first: Mapping[str, bytes] = MappingProxyType({"config.json": b"{}\n"}),
        branch: str = "main",
        tag: str = "v1.0",
    ) -> Self:
        """acme/tiny with `files`, and before them a commit of `first` that has a tag."""
        made = cls("acme/tiny", large=large)
        made.tags[tag] = made.commit(first, branch)
        made.commit(files, branch)
        return made

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """A further commit on a branch, with these files and no others."""
        oids = [(path, git_oid(body)) for path, body in sorted(files.items())]
        listed = repr((self.id, branch, len(self.commits), oids))
        oid = hashlib.sha1(listed.encode()).hexdigest()
        self.commits[oid] = dict(files)
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        if revision in self.commits:
            return revision
        return self.branches.get(revision) or self.tags.get(revision)

    def info(self, commit: str) -> dict[str, Any]:
        return {
            "_id": "6808ea0f8ae8d3e4a9fb3a4c",
            "id": self.id,
            "modelId": self.id,
            "private": self.private,
            "pipeline_tag": "text-generation",
            "library_name": "transformers",
            "tags": ["transformers", "safetensors", "text-generation", "license:apache-2.0"],
            "downloads": 1234567,
            "likes": 321,
            "author": self.id.partition("/")[0],
            "sha": commit,
            "lastModified": DATE,
            "gated": self.gated,
            "disabled": False,
            "cardData": {"license": "apache-2.0", "pipeline_tag": "text-generation"},
            "siblings": [{"rfilename": path} for path in self.commits[commit]],
            "createdAt": DATE,
            **self.extra,
        }

    def tree(self, commit: str) -> list[dict[str, Any]]:
        files = self.commits[commit]
        folders = {path[:at] for path in files for at, char in enumerate(path) if char == "/"}
        listed: list[dict[str, Any]] = [
            {"type": "directory", "oid": git_oid(path.encode()), "size": 0, "path": path}
            for path in sorted(folders)
        ]
        return listed + [self.entry(path, body) for path, body in sorted(files.items())]

    def entry(self, path: str, body: bytes) -> dict[str, Any]:
        if path not in self.large:
            return {"type": "file", "oid": git_oid(body), "size": len(body), "path": path}
        stored = pointer(body)
        return {
            "type": "file",
            "oid": git_oid(stored),
            "size": len(body),
            "path": path,
            "lfs": {"oid": sha256(body), "size": len(body), "pointerSize": len(stored)},
            "xetHash": sha256(b"xet" + sha256(body).encode()),
        }


@dataclass(frozen=True)
class Asked:
    """A request as it came in; header names are in lower case."""

    origin: str  # hub or storage
    method: str
    path: str
    headers: Mapping[str, str]


class HubServer:
    """Both origins, in threads, from `with` on.

    Args:
        page: entries of one page of a tree.
    """

    def __init__(self, *repos: Repo, page: int = 1000, tokens: tuple[str, ...] = (TOKEN,)) -> None:
        self.repos = {repo.id: repo for repo in repos}
        self.renamed: dict[str, str] = {}
        self.page = page
        self.tokens = tokens
        self.requests: list[Asked] = []
        self.plan: deque[tuple[str, int, dict[str, str]]] = deque()  # path part, status, headers
        self.altered: dict[str, bytes] = {}  # what a path's bytes are replaced with
        self.epoch = 0  # a signature of an earlier one has expired
        self.lock = threading.Lock()

    def __enter__(self) -> Self:
        self._servers = [_server(self, kind) for kind in (_Hub, _Storage)]
        self.url, self.storage = (f"http://127.0.0.1:{s.server_address[1]}" for s in self._servers)
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.05,)) for server in self._servers
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.stop()
        for thread in self._threads:
            thread.join()

    def asked(self, part: str = "", origin: str | None = None) -> list[Asked]:
        """The requests whose path contains `part`."""
        return [
            request
            for request in self.requests
            if part in request.path and origin in (None, request.origin)
        ]

    def expire(self) -> None:
        """No signed URL that was given out so far is good any more."""
        self.epoch += 1

    def fail(self, part: str, status: int, *, times: int = 1, **headers: str) -> None:
        """Answer the next requests whose path contains `part` with an error."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        self.plan.extend([(part, status, named)] * times)

    def body_of(self, digest: str) -> bytes | None:
        for repo in self.repos.values():
            for files in repo.commits.values():
                for path, body in files.items():
                    if sha256(body) == digest:
                        return self.altered.get(path, body)
        return None


def _server(hub: HubServer, kind: type[_Handler]) -> PatientServer:
    class Bound(kind):  # type: ignore[valid-type, misc]
        pass

    Bound.hub = hub
    return PatientServer(Bound)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5
    hub: HubServer
    origin: str

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Silence."""

    def do_GET(self) -> None:
        headers = {name.lower(): text for name, text in self.headers.items()}
        with self.hub.lock:
            self.hub.requests.append(Asked(self.origin, self.command, self.path, headers))
            planned = next((item for item in self.hub.plan if item[0] in self.path), None)
            if planned:
                self.hub.plan.remove(planned)
        with contextlib.suppress(ConnectionError):
            if planned:
                self.error(planned[1], **planned[2])
            else:
                self.answer()

    do_HEAD = do_POST = do_GET  # noqa: N815

    def answer(self) -> None:
        raise NotImplementedError

    def send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value: object, **headers: str) -> None:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        body = json.dumps(value).encode()
        named |= {"Content-Type": "application/json; charset=utf-8", "ETag": f'W/"{git_oid(body)}"'}
        if self.headers.get("If-None-Match") == named["ETag"]:
            self.send(304, b"", {"ETag": named["ETag"]})
        else:
            self.send(200, body, named)

    def error(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        if code:
            named |= {"X-Error-Code": code, "X-Error-Message": message or code}
        self.send(status, json.dumps({"error": message or code}).encode(), named)

    def bytes(self, body: bytes, headers: Mapping[str, str]) -> None:
        """A body, or the range of it that was asked for."""
        plain = {"Accept-Ranges": "bytes", "Last-Modified": formatdate(DATE_SECONDS), **headers}
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if match is None:
            return self.send(200, body, {**plain, "Content-Length": str(len(body))})
        first, last = int(match.group(1)), min(int(match.group(2)), len(body) - 1)
        piece = body[first : last + 1]
        plain["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
        return self.send(206, piece, {**plain, "Content-Length": str(len(piece))})


class _Hub(_Handler):
    origin = "hub"

    def answer(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if parts.path == "/api/models":
            return self.search(query["search"][0])
        if parts.path == "/api/whoami-v2":
            return self.json({"name": "ada"}) if self.token() else self.error(401)
        if match := re.fullmatch(
            r"/api/models/(.+?)/(revision|tree|paths-info)/([^/]+)/?", parts.path
        ):
            repo_id, kind, revision = match.group(1), match.group(2), unquote(match.group(3))
        elif match := re.fullmatch(r"/api/models/(.+)/(refs)", parts.path):
            repo_id, kind, revision = match.group(1), "refs", "main"
        elif match := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", parts.path):
            repo_id, kind, revision = match.group(1), "resolve", unquote(match.group(2))
        elif re.fullmatch(r"/api/models/[^/]+/[^/]+/tree/[^/]+/.+", parts.path):
            return self.error(404, "EntryNotFound", "no such folder")
        elif match := re.fullmatch(r"/api/models/(.+)", parts.path):
            repo_id, kind, revision = match.group(1), "revision", "main"
        else:
            return self.error(404)
        if new := self.hub.renamed.get(repo_id):
            where = self.path.replace(repo_id, new, 1)
            return self.send(307, b"", {"Location": where})
        repo = self.hub.repos.get(repo_id)
        if repo is None or (repo.private and not self.token()):
            # As the Hub does: without a token it does not say whether there is such a thing.
            status = 404 if self.token() else 401
            return self.error(status, "RepoNotFound", "Invalid username or password.")
        commit = repo.resolve(revision)
        if commit is None:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if kind == "resolve":
            return self.resolve(repo, commit, unquote(match.group(3)))
        if kind == "refs":
            return self.refs(repo)
        if kind == "paths-info":
            return self.paths_info(repo.commits[commit], repo)
        if kind == "tree":
            return self.tree(repo, commit, int(query.get("cursor", ["0"])[0]))
        return self.json(repo.info(commit))

    def token(self) -> bool:
        words = self.headers.get("Authorization", "").split()
        return len(words) == 2 and words[0] == "Bearer" and words[1] in self.hub.tokens

    def search(self, words: str) -> None:
        self.json(
            [
                {key: value for key, value in repo.info(commit).items() if key != "siblings"}
                for repo in self.hub.repos.values()
                if words.lower() in repo.id.lower() and (commit := repo.branches.get("main"))
            ]
        )

    def refs(self, repo: Repo) -> None:
        def listed(names: Mapping[str, str], kind: str) -> list[dict[str, str]]:
            return [
                {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}
                for name, commit in names.items()
            ]

        branches, tags = listed(repo.branches, "heads"), listed(repo.tags, "tags")
        self.json({"branches": branches, "tags": tags, "converts": []})

    def tree(self, repo: Repo, commit: str, start: int) -> None:
        entries = repo.tree(commit)
        stop = start + self.hub.page
        links = {}
        if stop < len(entries):
            following = f"{self.hub.url}/api/models/{repo.id}/tree/{commit}"
            following += f"?recursive=true&limit={self.hub.page}&cursor={stop}"
            links["Link"] = f'<{following}>; rel="next"'
        self.json(entries[start:stop], **links)

    def paths_info(self, files: Mapping[str, bytes], repo: Repo) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        wanted = [path for path in form["paths"] if path in files]
        self.json([repo.entry(path, files[path]) for path in wanted])

    def resolve(self, repo: Repo, commit: str, path: str) -> None:
        if repo.gated and not self.token():
            message = f"Access to model {repo.id} is restricted. You must be authenticated."
            return self.error(401, "GatedRepo", message)
        body = repo.commits[commit].get(path)
        if body is None:
            return self.error(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "X-Request-Id": "Root=1-2-3"}
        if path not in repo.large:
            served = self.hub.altered.get(path, body)
            return self.bytes(served, {**headers, "ETag": f'"{git_oid(body)}"'})
        digest = sha256(body)
        where = f"{self.hub.storage}/repos/ab/cd/{digest}?X-Amz-Expires=3600"
        where += f"&response-content-disposition={quote(path)}&Signature={self.hub.epoch}"
        headers |= {
            "Location": where,
            "X-Linked-Size": str(len(body)),
            "X-Linked-Etag": f'"{digest}"',
            "ETag": f'"{digest}"',
        }
        return self.send(302, b"Found. Redirecting", headers)


class _Storage(_Handler):
    origin = "storage"

    def answer(self) -> None:
        parts = urlsplit(self.path)
        if parse_qs(parts.query).get("Signature") != [str(self.hub.epoch)]:
            body = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
            return self.send(403, body, {"Content-Type": "application/xml"})
        body_or_none = self.hub.body_of(parts.path.rpartition("/")[2])
        if body_or_none is None:
            return self.error(404)
        return self.bytes(body_or_none, {"ETag": f'"{sha256(body_or_none)[:32]}"'})
