"""Whether the owner of a pod's secret may read a model: asked of the model's source itself.

The node has one mount and one cache, which reads with the node's own tokens. A pod's token goes to
neither: it only proves, by a read of one byte with this token and no other, that its owner could
have fetched the model alone. So a token opens nothing to other namespaces, whatever is local. The
read uses a cache of its own, which is removed, and no site cache, since those answer anybody.
Blocking; any thread.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from axonfs.client.session import Session
from axonfs.csi.mount import NodeMount
from axonfs.csi.refusal import RefusedError, invalid, unavailable
from axonfs.errors import AccessDeniedError, AxonError, NotFoundError
from axonfs.settings.parsers import parse_token
from axonfs.settings.settings import Settings

TOKEN = "token"
# A secret that was made for the Hub's own client has this key.
_OWN_KEYS = {"hf": "HF_TOKEN", "modelscope": "MODELSCOPE_API_TOKEN"}
# Seconds for which a proof counts: the kubelet publishes again every minute or so.
LASTS = 300.0
# Checks at a time: each opens an engine, with buffers of 48 MiB or more.
AT_A_TIME = 2
_CACHE_BYTES = 256 << 20


class Proofs:
    """Checks tokens; `settings` are the plugin's own, of which the tokens are not used."""

    def __init__(self, settings: Settings, mount: NodeMount) -> None:
        self._settings = settings
        self._mount = mount
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(AT_A_TIME)
        self._until: dict[str, float] = {}

    def check(self, secrets: Mapping[str, str], spec: str, seconds: float) -> None:
        """Return if the secret's owner may read the version `spec`.

        Args:
            seconds: how long to wait while other tokens are checked.

        Raises:
            RefusedError: the token is invalid, or does not allow it; or its source does not answer,
                or other checks take too long.
        """
        token = _token(secrets, spec.partition("/")[0])
        key = hashlib.sha256(json.dumps([token, spec]).encode()).hexdigest()
        with self._lock:
            now = time.monotonic()
            self._until = {key: until for key, until in self._until.items() if until > now}
            if key in self._until:
                return
        found = self._mount.version(spec)
        settings = self._settings_for(found, token)
        if not self._turns.acquire(timeout=seconds):
            raise unavailable(f"{spec}: other tokens are being checked; the kubelet asks again")
        try:
            self._read(settings, spec, found["files"])
        except (AccessDeniedError, NotFoundError) as exc:  # sources hide what a token may not see
            raise _refused(spec, exc) from exc
        finally:
            self._turns.release()
        with self._lock:
            self._until[key] = time.monotonic() + LASTS

    def _settings_for(self, found: Mapping[str, Any], token: str) -> Settings:
        """Settings with the version's source alone, and the token for it."""
        status, namespace = self._mount.status(), str(found["namespace"])
        hubs = {item["name"]: str(item["url"]).rstrip("/") for item in status["hubs"]}
        alone = replace(
            self._settings, via={}, offline=False, cache_size=_CACHE_BYTES, require_signature=()
        )
        if namespace in hubs:
            tokens = {hubs[namespace]: token}
            return replace(alone, registries=(), sources=(namespace,), tokens=tokens)
        urls = [str(item["url"]) for item in status["registries"]]
        # Other kinds of registries find the node's own credentials, in a file or from its cloud.
        urls = [url for url in urls if url.startswith(("https://", "http://"))]
        fitting = (url for url in urls if str(found["source"]).startswith(url))
        source = max(fitting, key=len, default=None)
        if source is None:
            what = f"{found['spec']}: its source cannot be asked with a token of a pod"
            raise RefusedError(grpc.StatusCode.FAILED_PRECONDITION, what)
        return replace(alone, registries=(source,), sources=(), tokens={source: token})

    @staticmethod
    def _read(settings: Settings, spec: str, files: list[dict[str, Any]]) -> None:
        """Read the first byte of the largest file: small files of a gated model may be public."""
        largest = max(files, key=lambda item: int(item["size"]), default=None)
        with tempfile.TemporaryDirectory(prefix="axonfs-proof-") as cache:
            session = Session(replace(settings, cache=Path(cache)), owner=True)
            with closing(session):
                if largest is None or not largest["size"]:
                    return
                opened = session.call(partial(session.files.open, spec, str(largest["path"])))
                assert opened is not None  # the cache is this session's own
                view = memoryview(bytearray(1))
                session.call(partial(session.files.read_into, opened.number, 0, view))


def _token(secrets: Mapping[str, str], namespace: str) -> str:
    text = secrets.get(TOKEN) or secrets.get(_OWN_KEYS.get(namespace, ""))
    if not text:
        raise invalid(f"the volume's secret has no key '{TOKEN}'")
    try:
        return parse_token(text.strip())
    except ValueError as exc:
        raise invalid("the token of the volume's secret is malformed") from exc


def _refused(spec: str, exc: AxonError) -> RefusedError:
    if exc.status == 401:
        what = f"{spec}: its source does not know the token of the volume's secret"
        return RefusedError(grpc.StatusCode.UNAUTHENTICATED, what)
    what = f"{spec}: the token of the volume's secret does not allow it"
    return RefusedError(grpc.StatusCode.PERMISSION_DENIED, what)
