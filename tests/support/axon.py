"""A registry as Axon's users have one, made by hand: a search that answers a bare array, and
manifests. There is no index, no list of versions and no chunk table; `latest` need not resolve.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from axonfs.names import Spec, parse_spec
from tests.support.serving import QuietHandler, Served

MANIFEST = "api/v1/models/{}/manifest.yaml"
DIGEST = "ab" * 32
# A manifest as people write them, with some of the keys of the schema.
WRITTEN = f"""\
# written by Axon
apiVersion: axon.mlos.io/v1
kind: Model
metadata:
  name: deepset/roberta
  namespace: hf
  version: 1.10
  description: >
    Question answering,
    extractive
  authors: [{{name: deepset}}]
  license: cc-by-4.0
  created: 2024-03-01T10:00:00Z
  updated: 0001-01-01T00:00:00Z
  tags: [qa, 2024]
spec:
  framework: {{name: PyTorch, version: "2.0"}}
  format:
    type: safetensors
    execution_format: onnx
    files:
      - path: model.safetensors
        size: 496313727
        sha256: {DIGEST.upper()}
      - {{path: config.json, size: 571, sha256: {"1" * 64}}}
  io:
    inputs: [{{name: input_ids, dtype: int64, shape: [-1, -1]}}]
  requirements: {{compute: {{cpu: {{min_cores: 1}}, memory: {{min_gb: 0.5}}}}}}
distribution:
  package: {{url: "https://example.org/x.axon", size: 1, sha256: {DIGEST}}}
"""


def axon_manifest(spec: Spec, files: Mapping[str, bytes], **metadata: object) -> dict[str, Any]:
    """Axon's whole schema, filled in."""
    listed = [
        {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for path, data in files.items()
    ]
    pixels = {"name": "pixel_values", "dtype": "float32", "shape": [-1, 3, 224, 224]}
    logits = {"name": "logits", "dtype": "float32", "shape": [-1, 1000]}
    return {
        "apiVersion": "v1",
        "kind": "Model",
        "metadata": {
            "name": spec.name,
            "namespace": spec.namespace,
            "version": spec.version,
            "description": "Image classification with residual connections",
            "authors": [{"name": "A. Author", "email": "a@example.org"}],
            "license": "Apache-2.0",
            "created": "2024-03-01T10:00:00Z",
            "updated": "2024-03-01T10:00:00Z",
            "tags": ["vision", "imagenet"],
            **metadata,
        },
        "spec": {
            "framework": {"name": "pytorch", "version": "2.0.0"},
            "format": {"type": "pytorch", "execution_format": "onnx", "files": listed},
            "io": {"inputs": [pixels], "outputs": [logits]},
            "requirements": {
                "compute": {
                    "cpu": {"min_cores": 2, "recommended_cores": 4},
                    "memory": {"min_gb": 1.5, "recommended_gb": 4.0},
                }
            },
        },
        "distribution": {
            "package": {
                "url": f"https://packages.example.org/{spec.name}-{spec.version}.axon",
                "size": 1000,
                "sha256": "ab" * 32,
                "mirrors": [],
            },
            "registry": {"url": "https://registry.example.org", "namespace": spec.namespace},
        },
    }


class AxonRegistry(Served):
    """Such a registry in `directory`, served on a free loopback port from `with` on.

    Args:
        searches: whether it answers api/v1/search.
    """

    def __init__(self, directory: Path, *, searches: bool = True) -> None:
        self.directory = directory
        self.searches = searches
        self.paths: list[str] = []
        self._found: list[dict[str, Any]] = []

    def add(
        self, spec: str, files: Mapping[str, bytes], *, latest: bool = False, **metadata: object
    ) -> None:
        """One more version; `latest`: its manifest is what `latest` resolves to, too."""
        parsed = parse_spec(spec)
        document = axon_manifest(parsed, files, **metadata)
        for data in files.values():
            digest = hashlib.sha256(data).hexdigest()
            self._write(f"objects/sha256/{digest[:2]}/{digest}", data)
        raw = yaml.safe_dump(document, sort_keys=False).encode()
        for version in (parsed.version, "latest") if latest else (parsed.version,):
            self._write(MANIFEST.format(f"{parsed.model}/{version}"), raw)
        keys = ("name", "namespace", "version", "description")
        self._found.append({key: document["metadata"][key] for key in keys})

    def _write(self, path: str, data: bytes) -> None:
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def answer(self, target: str) -> bytes | None:
        """The body for a request's target; None is 404."""
        self.paths.append(target)
        parts = urlsplit(target)
        if parts.path == "/api/v1/search":
            return self._search(parse_qs(parts.query)["q"][0]) if self.searches else None
        file = self.directory / unquote(parts.path).lstrip("/")
        return file.read_bytes() if file.is_file() else None

    def _search(self, query: str) -> bytes:
        """Whatever has the words in one piece, in the order of publication."""
        hits = [item for item in self._found if query.lower() in " ".join(item.values()).lower()]
        return json.dumps(hits).encode()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        return _handler(self)


def _handler(registry: AxonRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802
            body = registry.answer(self.path)
            self.answer(404 if body is None else 200, body or b"")

    return Handler
