"""Debian's docker-registry on loopback, and models pushed into it by plain HTTP requests."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.programs import executable, until_listening

IMAGE = "application/vnd.oci.image.manifest.v1+json"
MODEL_CONFIG = "application/vnd.cncf.model.config.v1+json"
WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
FILEPATH = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"
# The user `reader` with the password `secret`, as htpasswd writes it.
HTPASSWD = "reader:$2y$05$0x4aBW07Hz1alcbBXj.UweEpT/uhOq8MOHRTbtldk3bwlYy8L0R.C\n"
_CONFIG = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
http: {{addr: 127.0.0.1:{port}, secret: tests}}
"""


@dataclass(frozen=True)
class DockerRegistry:
    """A registry: `host` is its host and port, `root` its directory of blobs and manifests."""

    host: str
    root: Path

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[Mapping[str, str], bytes]:
        """The headers and the body of an answer.

        Raises:
            urllib.error.HTTPError: the status is 400 or more.
        """
        url = path if "://" in path else f"{self.url}{path}"
        asked = urllib.request.Request(url, body, dict(headers or {}), method=method)
        with urllib.request.urlopen(asked) as answer:
            return answer.headers, answer.read()

    def push_blob(self, repository: str, body: bytes) -> str:
        """Store a blob; return its digest."""
        digest = sha256(body)
        headers, _ = self.request("POST", f"/v2/{repository}/blobs/uploads/", b"")
        sign = "&" if "?" in headers["Location"] else "?"
        url = f"{headers['Location']}{sign}digest={digest}"
        self.request("PUT", url, body, {"Content-Type": "application/octet-stream"})
        return digest

    def push_manifest(self, repository: str, reference: str, manifest: Mapping[str, Any]) -> str:
        """Store a manifest; return its digest."""
        raw = json.dumps(manifest).encode()
        kind = str(manifest.get("mediaType", IMAGE))
        path = f"/v2/{repository}/manifests/{reference}"
        self.request("PUT", path, raw, {"Content-Type": kind})
        return sha256(raw)

    def push(self, repository: str, tag: str, model: Packed) -> str:
        """Store a model under a tag; return the digest of its manifest."""
        self.push_blob(repository, model.config)
        for body in model.bodies:
            self.push_blob(repository, body)
        return self.push_manifest(repository, tag, model.manifest)


@dataclass
class Packed:
    """A model in layers; its config is ModelPack's unless it is given."""

    layers: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    config: bytes = b'{"descriptor": {"description": "a small one"}, "config": {}, "modelfs": {}}'
    config_type: str = MODEL_CONFIG

    def add(
        self,
        path: str,
        body: bytes,
        kind: str = WEIGHT,
        annotations: Mapping[str, str] | None = None,
    ) -> Packed:
        """Add a layer with the annotations of its file path."""
        self.bodies.append(body)
        noted = {FILEPATH: path} if annotations is None else dict(annotations)
        self.layers.append(
            {
                "mediaType": kind,
                "digest": sha256(body),
                "size": len(body),
                "annotations": noted,
            }
        )
        return self

    @property
    def manifest(self) -> dict[str, Any]:
        config = {
            "mediaType": self.config_type,
            "digest": sha256(self.config),
            "size": len(self.config),
        }
        return {
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "artifactType": "application/vnd.cncf.model.manifest.v1+json",
            "config": config,
            "layers": self.layers,
        }


def archive(files: dict[str, bytes], *, packed: bool) -> bytes:
    """A tar as KitOps writes it, with pax headers and directories, gzipped if `packed`."""
    made = io.BytesIO()
    with tarfile.open(
        fileobj=made, mode="w:gz" if packed else "w", format=tarfile.PAX_FORMAT
    ) as tar:
        folder = tarfile.TarInfo("model")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(body), {"mtime": "1700000000.25"}
            tar.addfile(info, io.BytesIO(body))
    return made.getvalue()


def sha256(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


@contextlib.contextmanager
def docker_registry(home: Path, more: str = "") -> Iterator[DockerRegistry]:
    """Start it with its data and log in `home`.

    Args:
        more: further lines of its configuration.

    Raises:
        RuntimeError: it did not start; the message has the last line of its log.
    """
    home.mkdir(parents=True, exist_ok=True)
    port, root = _free_port(), home / "data"
    config, log = home / "config.yml", home / "registry.log"
    config.write_text(_CONFIG.format(root=root, port=port) + more)
    command = [executable("docker-registry"), "serve", str(config)]
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        until_listening(port, process, log)
        yield DockerRegistry(f"127.0.0.1:{port}", root)
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def pulled(server: DockerRegistry, name: str, tag: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the files, as another client reads them."""
    _, raw = server.request("GET", f"/v2/{name}/manifests/{tag}", headers={"Accept": IMAGE})
    manifest = json.loads(raw)
    files = {}
    for layer in (manifest["config"], *manifest["layers"]):
        _, body = server.request("GET", f"/v2/{name}/blobs/{layer['digest']}")
        assert "sha256:" + hashlib.sha256(body).hexdigest() == layer["digest"]
        assert len(body) == layer["size"]
        files[layer.get("annotations", {}).get(TITLE, "")] = body
    return manifest, files
