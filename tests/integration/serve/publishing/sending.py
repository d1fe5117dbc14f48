"""One object, and how a client sends it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from axonfs.formats.chunktable import ChunkTable, chunk_digest
from axonfs.formats.layout import manifest_key
from axonfs.http_client import Limits
from axonfs.names import Spec, parse_spec
from axonfs.publish import publish
from axonfs.serve import RegistryServer
from axonfs.storage import HttpStorage
from tests.integration.serve.test_serve import Client
from tests.support.registry import SPEC

LIMITS = Limits(attempts=3, backoff_min=0.01, backoff_max=0.02)
CHUNK = 64 << 10
PART = 128 << 10
DATA = os.urandom(3 * CHUNK) + b"tail"
DIGEST = hashlib.sha256(DATA).hexdigest()
TABLE = ChunkTable(
    len(DATA),
    CHUNK,
    b"".join(chunk_digest(DATA[at : at + CHUNK]) for at in range(0, len(DATA), CHUNK)),
)
UPLOAD = f"/api/v1/uploads/{DIGEST}/{len(DATA)}/{PART}"
VISION = "/api/v1/models/vision/a/1.0.0/manifest.yaml"
MANIFEST = "/" + manifest_key(parse_spec(SPEC))


def storage(server: RegistryServer, secret: str | None) -> HttpStorage:
    return HttpStorage(server.url, secret, LIMITS)


def send(
    client: Client, secret: str, method: str, path: str, body: bytes = b""
) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {secret}"}
    client.connection.request(method, path, body or None, headers)
    response = client.connection.getresponse()
    return response.status, response.read()


def upload(client: Client, secret: str, data: bytes = DATA, table: bytes = TABLE.encode()) -> int:
    """Upload `data` in parts, as the object DIGEST."""
    for number in range(2):
        part = data[number * PART : (number + 1) * PART]
        assert send(client, secret, "PUT", f"{UPLOAD}/{number}", part)[0] == 204
    return send(client, secret, "POST", UPLOAD, table)[0]


def manifest(spec: Spec, tmp_path: Path) -> bytes:
    """The manifest of a version with the file DATA."""
    (tmp_path / "model").mkdir(exist_ok=True)
    (tmp_path / "model/a.bin").write_bytes(DATA)
    elsewhere = tmp_path / "elsewhere"
    publish(tmp_path / "model", spec, elsewhere, chunk_size=CHUNK)
    return (elsewhere / manifest_key(spec)).read_bytes()


def written(registry: Path) -> list[str]:
    """The files that readers of the registry can see."""
    files = (path.relative_to(registry) for path in registry.rglob("*") if path.is_file())
    return sorted(str(path) for path in files if not str(path).startswith((".", "objects/tmp")))
