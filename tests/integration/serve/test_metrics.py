"""`axonfs registry serve --metrics`: what it counts, on an address of its own."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from axonfs.errors import AxonError
from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.serve import Access, Grant, Tokens, create_token, serving
from tests.integration.serve.publishing.sending import storage
from tests.support.registry import make_model, published
from tests.support.scraping import free_port, scrape

ANY = frozenset({"*"})


def status_of(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=10
        ) as got:
            got.read()
            return int(got.status)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code


def test_what_a_server_counts(tmp_path: Path) -> None:
    registry, port, tokens = published(tmp_path), free_port(), tmp_path / "tokens.yaml"
    secret = create_token(tokens, Grant("ci", read=ANY, publish=ANY, remove=ANY))
    with serving(
        registry, "127.0.0.1", 0, access=Access(Tokens(tokens)), metrics=f"127.0.0.1:{port}"
    ) as server:
        index = (registry / "api/v1/index.json").stat().st_size
        assert status_of(f"{server.url}/api/v1/index.json") == 200
        assert status_of(f"{server.url}/none") == 404
        assert status_of(f"{server.url}/none", Authorization="Bearer wrong") == 401
        assert status_of(f"{server.url}/metrics") == 404  # not where readers come
        with socket.create_connection(("127.0.0.1", int(server.server_address[1]))) as client:
            client.sendall(b'AX"\\N / HTTP/1.1\r\n\r\n')
            client.recv(1000)
        make_model(tmp_path / "new", {"a.bin": 5000})
        publish(tmp_path / "new", parse_spec("nlp/new@1.0.0"), storage(server, secret))
        found = scrape(port)
        assert found["axonfs_registry_requests_total{GET,200}"] >= 1
        assert found["axonfs_registry_requests_total{GET,404}"] >= 2
        assert found["axonfs_registry_requests_total{GET,401}"] == 1
        assert found["axonfs_registry_requests_total{other,501}"] == 1
        assert found["axonfs_registry_refused_tokens_total{}"] == 1
        assert found["axonfs_registry_changes_total{object uploaded}"] == 1
        assert found["axonfs_registry_changes_total{version published}"] == 1
        assert found["axonfs_registry_received_bytes_total{}"] > 5000
        assert found["axonfs_registry_sent_bytes_total{}"] > index
        assert found["axonfs_registry_readable{}"] == 1
        assert found["axonfs_registry_request_duration_seconds_count{GET}"] == sum(
            number for name, number in found.items() if "requests_total{GET," in name
        )
        registry.rename(tmp_path / "away")
        assert scrape(port)["axonfs_registry_readable{}"] == 0


def test_a_port_in_use(tmp_path: Path) -> None:
    registry = published(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with (
            pytest.raises(AxonError, match="Address already in use; choose another address"),
            serving(registry, "127.0.0.1", 0, metrics=address),
        ):
            pass
