"""The example of packaging/: nginx before the built-in server, with TLS."""

from __future__ import annotations

import contextlib
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from axonfs.formats.layout import signatures_key
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
from tests.support.signing import UnverifiedSigner
from tests.support.wiring import Authority

Example = tuple[str, str, Path, Authority]
EXAMPLE = Path(__file__).parents[3] / "packaging/nginx-registry.conf"


@contextlib.contextmanager
def example(tmp_path: Path, change: Callable[[str], str] = str, **more: bool) -> Iterator[Example]:
    """The example, before a server; `change` is made to its text."""
    registry, tokens = tmp_path / "registry", tmp_path / "server-tokens.yaml"
    registry.mkdir()
    (tmp_path / "tls").mkdir()
    authority, secret = Authority.make(tmp_path / "tls"), token(tokens, "ci", publish="nlp")
    port = free_port()
    with running_with(registry, Access(Tokens(tokens), **more)) as server:
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
        with configured(change(text), tmp_path / "nginx"):
            yield f"https://localhost:{port}", secret, registry, authority


def test_the_example_publishes_and_serves(tmp_path: Path) -> None:
    with example(tmp_path) as served:
        check(*served, tmp_path)


def private(text: str) -> str:
    """As the example says: without files, and everything is proxied."""
    head, _, _ = re.sub(r"(?m)^    (root|index) .*$", "", text).partition("    # Objects never")
    return head + "    location / { proxy_pass http://axonfs_registry; }\n}\n"


def test_a_private_registry_is_proxied_as_a_whole(tmp_path: Path) -> None:
    with example(tmp_path, private, private=True) as (url, secret, registry, authority):
        storage = HttpStorage(url, secret, Limits(attempts=1), Trust(authority.bundle))
        publish(make_model(tmp_path / "model", {"a": 1000}), parse_spec(SPEC), storage)
        context = ssl.create_default_context(cafile=str(authority.bundle))
        path = next(registry.glob("objects/sha256/*/*"))
        for hidden in ("/", "/index.html", "/api/v1/index.json", f"/{path.relative_to(registry)}"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(f"{url}{hidden}", context=context)


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
    for key in ("k1", "k2"):
        publish(model, parse_spec(SPEC), storage, signer=UnverifiedSigner(key))  # type: ignore[arg-type]
    assert get(f"/{signatures_key(parse_spec(SPEC))}")[2].count(b"\n") == 2
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
