"""The example of packaging/: nginx before the built-in server, with TLS."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from axonfs.http_client import Limits, Trust
from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.serve import Access, Tokens
from axonfs.storage import HttpStorage
from axonfs.storage.parts import PART_BYTES
from tests.integration.serve.test_access import running_with, token
from tests.integration.serve.test_serve import IMMUTABLE
from tests.support.nginx import configured, free_port
from tests.support.registry import SPEC, make_model
from tests.support.wiring import Authority

EXAMPLE = Path(__file__).parents[3] / "packaging/nginx-registry.conf"


def test_the_example_publishes_and_serves(tmp_path: Path) -> None:
    registry, tokens = tmp_path / "registry", tmp_path / "server-tokens.yaml"
    registry.mkdir()
    (tmp_path / "tls").mkdir()
    authority, secret = Authority.make(tmp_path / "tls"), token(tokens, "ci", publish="nlp")
    port = free_port()
    with running_with(registry, Access(Tokens(tokens))) as server:
        text = EXAMPLE.read_text()
        for shown, real in {
            "127.0.0.1:8080": f"127.0.0.1:{server.server_address[1]}",
            "/etc/axonfs-registry/cert.pem": str(tmp_path / "tls/leaf.pem"),
            "/etc/axonfs-registry/key.pem": str(tmp_path / "tls/leaf.key"),
            "/var/lib/axonfs-registry": str(registry),
            "listen [::]:443 ssl;": "",
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        }.items():
            assert shown in text
            text = text.replace(shown, real)
        with configured(text, tmp_path / "nginx"):
            check(f"https://localhost:{port}", secret, registry, authority, tmp_path)


def check(url: str, secret: str, registry: Path, authority: Authority, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=str(authority.bundle))

    def get(path: str) -> tuple[int, str | None, bytes]:
        try:
            with urllib.request.urlopen(f"{url}{path}", context=context) as answer:
                return answer.status, answer.headers["Cache-Control"], answer.read()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, None, exc.read()

    storage = HttpStorage(url, secret, Limits(attempts=1), Trust(authority.bundle))
    model = make_model(tmp_path / "model", {"a": PART_BYTES + 1})
    publish(model, parse_spec(SPEC), storage)
    (path,) = [one for one in registry.glob("objects/sha256/*/*") if one.stat().st_size > 100]
    status, policy, body = get(f"/{path.relative_to(registry)}")
    assert (status, policy) == (200, IMMUTABLE)
    assert body == (model / "a").read_bytes()
    status, policy, body = get("/api/v1/index.json")
    assert (status, policy) == (200, "no-cache")
    assert b"tiny" in body
    assert b"tiny" in get("/api/v1/search?q=tiny")[2]
    assert b"<html" in get("/")[2]
    assert get("/healthz")[2] == b"ok\n"
    (registry / "objects/tmp/draft").write_text("x")
    for hidden in ("/objects/tmp/draft", "/.axonfs.lock", "/api/v1/none"):
        assert get(hidden)[0] == 404
    with pytest.raises(Exception, match="the token 'ci' may not publish into vision"):
        publish(model, parse_spec("vision/a@1.0.0"), storage)
