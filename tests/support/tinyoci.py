"""An OCI registry on loopback that a test can have ask for tokens, redirect, and misbehave.

It serves files at the paths that a registry's documents and blobs have, so that `FaultyOrigin` is
one. Tokens come from the registry's own `/token`. Blobs may be behind signed URLs on a second
origin, which a test can have expire.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

from tests.support.dockerregistry import Packed, sha256
from tests.support.faulty import Exchange, Fault, redirect, status
from tests.support.faulty_origin import FaultyOrigin

USER, PASSWORD = "reader", "secret"


def lay_out(root: Path, repository: str, tag: str, model: Packed) -> str:
    """Write a model as a registry's files below `root`; return the digest of its manifest."""
    raw = json.dumps(model.manifest).encode()
    digest = put_manifest(root, repository, tag, raw)
    for body in (model.config, *model.bodies):
        put_blob(root, repository, sha256(body), body)
    return digest


def put_manifest(root: Path, repository: str, tag: str, raw: bytes) -> str:
    """Write a manifest under its tag and its digest, and the list of tags."""
    home = root / "v2" / repository
    (home / "manifests").mkdir(parents=True, exist_ok=True)
    digest = sha256(raw)
    for name in (tag, digest):
        (home / "manifests" / name).write_bytes(raw)
    names = [path.name for path in (home / "manifests").iterdir() if ":" not in path.name]
    (home / "tags").mkdir(exist_ok=True)
    (home / "tags/list").write_text(json.dumps({"name": repository, "tags": sorted(names)}))
    return digest


def put_blob(root: Path, repository: str, digest: str, body: bytes) -> None:
    """Write a blob under a digest, which may be another one's."""
    blobs = root / "v2" / repository / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / digest).write_bytes(body)


class TinyOci:
    """The registry; `with` runs it.

    `wants` is what it asks for: nothing, "bearer" or "basic". `token` is the token that it accepts
    now, `signature` the one of URLs of its storage; None serves blobs itself. `fault` may change
    any other answer.
    """

    def __init__(self, root: Path) -> None:
        self.origin = FaultyOrigin(root)
        self.storage = FaultyOrigin(root)
        self.wants = ""
        self.token = "first"
        self.lifetime = 300
        self.open_to_all = True
        self.signature: str | None = None
        self.fault: Fault | None = None
        self.queries: list[dict[str, list[str]]] = []  # of the requests for tokens
        self.origin.always(self._answer)
        self.storage.always(self._stored)

    @property
    def host(self) -> str:
        return urlsplit(self.origin.url).netloc

    def __enter__(self) -> Self:
        self.origin.__enter__()
        self.storage.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.storage.__exit__()
        self.origin.__exit__()

    def seen(self, part: str) -> list[str]:
        """The paths of the requests to the registry that contain `part`."""
        return [seen.path for seen in self.origin.requests if part in seen.path]

    def _answer(self, exchange: Exchange) -> None:
        parts = urlsplit(exchange.seen.path)
        authorization = exchange.seen.headers.get("authorization", "")
        if parts.path == "/token":
            self.queries.append(parse_qs(parts.query))
            self._give_token(exchange, authorization)
        elif refusal := self._refusal(authorization):
            refusal(exchange)
        elif "/blobs/" in parts.path and self.signature is not None:
            url = f"{self.storage.url}{parts.path.lstrip('/')}?sig={self.signature}"
            redirect(url)(exchange)
        elif self.fault:
            self.fault(exchange)

    def _refusal(self, authorization: str) -> Callable[[Exchange], None] | None:
        if self.wants == "bearer" and authorization != f"Bearer {self.token}":
            realm = f'Bearer realm="{self.origin.url}token",service="tiny",scope="ignored"'
            return status(401, WWW_Authenticate=realm)
        if self.wants == "basic" and authorization != basic():
            return status(401, WWW_Authenticate='Basic realm="tiny"')
        return None

    def _give_token(self, exchange: Exchange, authorization: str) -> None:
        if authorization != basic() and (authorization or not self.open_to_all):
            status(401)(exchange)
            return
        body = {"token": self.token, "expires_in": self.lifetime}
        exchange.status, exchange.body = 200, json.dumps(body).encode()
        exchange.headers = {"Content-Length": str(len(exchange.body))}

    def _stored(self, exchange: Exchange) -> None:
        sent = parse_qs(urlsplit(exchange.seen.path).query).get("sig")
        if sent != [self.signature]:
            status(403)(exchange)


def basic() -> str:
    return "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
