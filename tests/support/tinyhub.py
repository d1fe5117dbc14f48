"""A small model on a hub that speaks Hugging Face's interface, and AxonFS's hub for it."""

from __future__ import annotations

from collections.abc import Callable

from axonfs.http_client import Documents
from axonfs.sources import Hub
from axonfs.sources.huggingface import HuggingFace
from axonfs.store import Store
from tests.support.hub import HubServer

MIB = 1 << 20
NAME = "hf/acme/tiny"
FILES = {
    ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
    "README.md": b"---\nlicense: apache-2.0\n---\n# Tiny\n",
    "config.json": b'{"model_type": "llama"}\n',
    "empty.txt": b"",
    "manifest.yaml": b"a: file of the repository's own\n",
    "model.safetensors": bytes(range(256)) * (3 * MIB // 256) + b"end",
    "onnx/model.onnx": b"onnx" * 5000,
    "tokenizer.json": b'{"a": 1}' * (MIB // 5),
}
LARGE = frozenset({"model.safetensors", "onnx/model.onnx"})


def at(hub: HubServer, token: str | None = None) -> Callable[[Documents, Store], dict[str, Hub]]:
    """The `hubs` of a rig: `hub` serves the namespace hf."""
    return lambda documents, store: {"hf": HuggingFace(hub.url, documents, token, cache=store)}
