"""What the tests of copies from and to OCI registries have in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from axonfs.errors import AxonError
from axonfs.http_client import Calls, Said
from axonfs.names import parse_spec
from axonfs.oci.manifest import INDEX
from axonfs.publish.registry import Registry
from axonfs.publish.signatures import add
from axonfs.registries import copy, sides
from axonfs.settings.settings import Settings
from axonfs.signatures import parse_signature
from axonfs.storage import Directory
from tests.support.dockerregistry import IMAGE, DockerRegistry
from tests.support.faulty import Exchange
from tests.support.signing import bundle

OLD, NEW, OTHER = "nlp/tiny@1.0.0", "nlp/tiny@1.1.0+cu118", "cv/team/net@0.1"
SIZES = {"a.safetensors": (2 << 20) + 5, "b.txt": 70, "sub/empty.txt": 0}
TAR = "application/vnd.cncf.model.weight.v1.tar"


def signed(registry: Path, spec: str, key: str) -> None:
    """Add a signature that nobody has made."""
    target = Registry(Directory(registry))
    manifest = target.published(parse_spec(spec))
    add(target, manifest, [parse_signature(bundle(manifest, key))])


def files(registry: Path) -> dict[str, bytes]:
    """All files but the lock."""
    return {
        str(path.relative_to(registry)): path.read_bytes()
        for path in registry.rglob("*")
        if path.is_file() and path.name != ".axonfs.lock"
    }


def of_old(files: dict[str, bytes]) -> dict[str, bytes]:
    """The manifest and the signatures of that version."""
    found = {path: body for path, body in files.items() if "/tiny/1.0.0/" in path}
    assert len(found) == 2
    return found


def get(server: DockerRegistry, path: str) -> bytes:
    return server.request("GET", f"/v2/{path}", headers={"Accept": f"{IMAGE}, {INDEX}"})[1]


def tags(server: DockerRegistry, repository: str) -> set[str]:
    return set(json.loads(get(server, f"{repository}/tags/list"))["tags"])


class Line:
    """Sees the requests that write to an OCI registry."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes: list[str] = []
        self.dies_before = -1
        self.answered: Callable[[Said], Said] = lambda said: said
        real = Calls.send

        def send(calls: Calls, method: str, url: Any, *more: Any, **named: Any) -> Said:
            if method in ("GET", "HEAD"):
                return real(calls, method, url, *more, **named)
            if len(self.writes) == self.dies_before:
                raise DeathError
            self.writes.append(f"{method} {url}")
            return self.answered(real(calls, method, url, *more, **named))

        monkeypatch.setattr(Calls, "send", send)


class DeathError(Exception):
    """The program dies before a write."""


def never(error: AxonError) -> None:
    raise error


def copied(source: str, target: str, *specs: str) -> None:
    with sides(Settings(), source, target) as (reader, to):
        copy(reader, to, map(parse_spec, specs), copied=bool, failed=never)


def answer(exchange: Exchange, manifests: list[dict[str, Any]]) -> None:
    """Answer with an index."""
    exchange.status, exchange.body = 200, json.dumps({"manifests": manifests}).encode()
    exchange.headers = {"Content-Length": str(len(exchange.body))}
