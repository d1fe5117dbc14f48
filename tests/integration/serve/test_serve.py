"""The embedded server and nginx: the same registry, the same answers; and what only ours does."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from axonfs.formats.listing import parse_index, parse_versions
from axonfs.formats.manifest import parse_manifest
from axonfs.names import parse_spec
from axonfs.page import page
from axonfs.serve import access_log
from tests.support.nginx import nginx
from tests.support.registry import SPEC, NoRangeServer, RegistryServer, published

MANIFEST = "/api/v1/models/nlp/tiny/1.0.0/manifest.yaml"
IMMUTABLE = "public, max-age=31536000, immutable"


@pytest.fixture(autouse=True)
def no_warnings(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return published(tmp_path)


class Client:
    """One kept-alive connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)

    def ask(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        self.connection.request(method, path, headers=named)
        response = self.connection.getresponse()
        return response.status, response.headers, response.read()


@contextlib.contextmanager
def client_of(url: str) -> Iterator[Client]:
    client = Client(url)
    with contextlib.closing(client.connection):
        yield client


@pytest.fixture
def client(server: RegistryServer) -> Iterator[Client]:
    with client_of(server.url) as client:
        yield client


def object_of(registry: Path) -> tuple[str, bytes]:
    """The URL path and the bytes of the model's weights."""
    manifest = parse_manifest((registry / MANIFEST[1:]).read_bytes())
    entry = manifest.file("model.safetensors")
    assert entry
    path = f"/objects/sha256/{entry.digest[:2]}/{entry.digest}"
    return path, (registry / path[1:]).read_bytes()


def check_registry(url: str, registry: Path) -> None:
    """All a client needs of a server: every document, whole objects, ranges, validators."""
    with client_of(url) as client:
        listings, skipped = parse_index(client.ask("/api/v1/index.json")[2])
        assert ([str(listing.spec) for listing in listings], skipped) == ([SPEC], 0)
        versions = parse_versions(client.ask("/api/v1/models/nlp/tiny/versions.json")[2])
        assert versions.latest == "1.0.0"
        manifest = parse_manifest(client.ask(MANIFEST)[2], parse_spec(SPEC))
        for entry in manifest.files:
            name = f"sha256/{entry.digest[:2]}/{entry.digest}"
            status, headers, body = client.ask(f"/objects/{name}")
            assert (status, headers["Content-Length"]) == (200, str(entry.size))
            assert hashlib.sha256(body).hexdigest() == entry.digest
            assert client.ask(f"/chunks/{name}")[0] == 200
        path, data = object_of(registry)
        status, headers, body = client.ask(path, Range="bytes=1048576-2097151")
        assert (status, body) == (206, data[1 << 20 : 2 << 20])
        assert headers["Content-Range"] == f"bytes 1048576-2097151/{len(data)}"
        etag = headers["ETag"]
        assert client.ask(path, If_None_Match=etag)[0] == 304
        assert client.ask(path, Range="bytes=0-9", If_Range=etag)[0] == 206
        assert client.ask(path, Range="bytes=0-9", If_Range='"other"')[::2] == (200, data)
        assert client.ask(path, Range=f"bytes={len(data)}-")[0] == 416
        assert client.ask("/api/v1/models/nlp/none/versions.json")[0] == 404


def test_the_embedded_server_serves_a_registry(server: RegistryServer, registry: Path) -> None:
    check_registry(server.url, registry)


def test_nginx_serves_a_registry_as_it_is(registry: Path, tmp_path: Path) -> None:
    with nginx(registry, tmp_path / "nginx") as url:
        check_registry(url, registry)


def test_what_is_answered_says_how_long_it_holds(client: Client, registry: Path) -> None:
    path, _ = object_of(registry)
    for url, policy, kind in (
        (path, IMMUTABLE, "application/octet-stream"),
        (path.replace("objects", "chunks"), IMMUTABLE, "application/octet-stream"),
        (MANIFEST, "no-cache", "application/yaml"),
        ("/api/v1/index.json", "no-cache", "application/json"),
    ):
        headers = client.ask(url)[1]
        assert (headers["Cache-Control"], headers["Content-Type"]) == (policy, kind)
        assert headers["Accept-Ranges"] == "bytes"
    assert client.ask(path)[1]["ETag"] == f'"{path.rpartition("/")[2]}"'


def test_an_etag_changes_with_the_document(client: Client, registry: Path, tmp_path: Path) -> None:
    etag = client.ask("/api/v1/index.json")[1]["ETag"]
    assert client.ask("/api/v1/index.json", If_None_Match=etag)[::2] == (304, b"")
    published(tmp_path, spec="nlp/tiny@1.1.0", seed=1)
    status, headers, _ = client.ask("/api/v1/index.json", If_None_Match=etag)
    assert (status, headers["ETag"] != etag) == (200, True)


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=3158000-", slice(3158000, None)),
        ("bytes=3158000-99999999", slice(3158000, None)),
    ],
)
def test_single_ranges(client: Client, registry: Path, header: str, part: slice) -> None:
    path, data = object_of(registry)
    status, headers, body = client.ask(path, Range=header)
    start = part.indices(len(data))[0]
    assert (status, body) == (206, data[part])
    assert headers["Content-Range"] == f"bytes {start}-{start + len(body) - 1}/{len(data)}"


def test_other_ranges_mean_the_whole(client: Client, registry: Path) -> None:
    path, data = object_of(registry)
    for header in ("bytes=1-2,4-5", "bytes=5-2", "lines=1-2", "bytes"):
        assert client.ask(path, Range=header)[::2] == (200, data)


def test_a_range_past_the_end_is_416_and_names_the_size(client: Client, registry: Path) -> None:
    path, data = object_of(registry)
    status, headers, body = client.ask(path, Range=f"bytes={len(data)}-")
    assert (status, headers["Content-Range"], body) == (416, f"bytes */{len(data)}", b"")


def test_head_has_the_headers_of_the_whole_and_no_body(client: Client, registry: Path) -> None:
    path, data = object_of(registry)
    status, headers, body = client.ask(path, "HEAD", Range="bytes=0-9")
    assert (status, headers["Content-Length"], body) == (200, str(len(data)), b"")
    assert client.ask(MANIFEST)[0] == 200, "the connection must still be usable"


def test_one_connection_carries_every_answer(client: Client, registry: Path) -> None:
    path, _ = object_of(registry)
    client.connection.connect()
    sock = client.connection.sock
    for url in (path, "/nothing", "/", "/api/v1/search?q=x", MANIFEST, path):
        client.ask(url, Range="bytes=0-9")
    assert client.connection.sock is sock


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_written(client: Client, method: str) -> None:
    status, headers, _ = client.ask(MANIFEST, method)
    assert (status, headers["Allow"], headers["Connection"]) == (405, "GET, HEAD", "close")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret",
        "/api/v1/../../../secret",
        "/api/v1/%2e%2e/%2e%2e/../secret",
        "/objects/sha256/..%2f..%2f..%2fsecret",
        "/api/v1//index.json",
        "/.axonfs.lock",
        "/api/v1/.hidden",
        "/other.txt",
        "/objects/tmp/draft",
        "/api/v1/link.json",
        "/api/v1/linked/secret",
        "/api/v1/models",
        "/api/v1/models/",
        "/api/v1",
        "/api/v1/pipe",
        "/api/v1/index.json%00",
        "/api/v1/" + "a" * 5000,
        "/api/v1/index.json/x",
    ],
)
def test_only_the_layout_is_there(client: Client, registry: Path, path: str) -> None:
    (registry.parent / "secret").write_text("secret")
    (registry / "api/v1/.hidden").write_text("secret")
    (registry / "other.txt").write_text("secret")
    (registry / "objects/tmp/draft").write_text("secret")
    (registry / "api/v1/link.json").symlink_to(registry.parent / "secret")
    (registry / "api/v1/linked").symlink_to(registry.parent)
    os.mkfifo(registry / "api/v1/pipe")
    status, _, body = client.ask(path)
    assert status == 404
    assert b"secret" not in body


def test_links_within_the_registry_are_served(client: Client, registry: Path) -> None:
    (registry / "api/v1/mirror.json").symlink_to("index.json")
    assert client.ask("/api/v1/mirror.json")[0] == 200


def test_a_url_in_the_form_for_proxies_is_understood(server: RegistryServer) -> None:
    with client_of(server.url) as client:
        assert client.ask(f"{server.url}{MANIFEST}")[0] == 200


def test_search_answers_as_axon_did(client: Client, tmp_path: Path) -> None:
    published(tmp_path, spec="vision/tiny-vit@2.0.0", seed=1)
    status, headers, body = client.ask("/api/v1/search?q=tiny")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    found = json.loads(body)
    assert [item["name"] for item in found] == ["tiny", "tiny-vit"]
    assert found[0]["namespace"] == "nlp"
    assert {"name", "namespace", "version", "description", "framework", "tags"} <= found[0].keys()
    assert json.loads(client.ask("/api/v1/search?q=vision+TINY")[2]) == found[1:]
    assert json.loads(client.ask("/api/v1/search?q=no%20such")[2]) == []
    assert len(json.loads(client.ask("/api/v1/search")[2])) == 2


def test_the_root_is_the_page_of_this_axonfs(client: Client, registry: Path) -> None:
    (registry / "index.html").write_text("of another version")
    for path in ("/", "/index.html"):
        status, headers, body = client.ask(path)
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert body == page()


def test_the_health_is_that_of_the_directory(client: Client, registry: Path) -> None:
    assert client.ask("/healthz")[::2] == (200, b"ok\n")
    registry.rename(registry.parent / "gone")
    status, _, body = client.ask("/healthz")
    assert (status, body) == (503, b"503 the registry's directory cannot be read now\n")


def test_each_answer_is_a_line_of_the_access_log(
    server: RegistryServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=access_log.name)
    client.ask(MANIFEST, Range="bytes=0-9")
    sock = client.connection.sock
    sock.sendall('GET /none%0A\x1b[2J"b\u202e HTTP/1.1\r\nHost: x\r\n\r\n'.encode())
    with sock.makefile("rb") as answer:
        assert b"404 not found\n" in iter(answer.readline, b"")
    client.connection.close()
    with client_of(server.url) as other:
        other.ask("/", "POST")
    deadline = time.monotonic() + 10
    while len(caplog.records) < 3:  # a line is written after its answer
        assert time.monotonic() < deadline, caplog.text
        time.sleep(0.01)
    lines = [record.getMessage() for record in caplog.records if record.name == access_log.name]
    moment = r"127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "
    expected = (
        rf'"GET {re.escape(MANIFEST)} HTTP/1\.1" 206 10',
        r'"GET /none%0A\?\[2J%22b[^"\u202e\x80]* HTTP/1\.1" 404 14',
        r'"POST / HTTP/1\.1" 405 \d+',
    )
    assert len(lines) == len(expected)
    for pattern in expected:  # in any order: each connection has a thread of its own
        assert any(re.fullmatch(moment + pattern, line) for line in lines), (pattern, lines)


def test_the_command_writes_the_access_log_to_standard_error(registry: Path) -> None:
    command = [sys.executable, "-m", "axonfs", "registry", "serve", str(registry), "--port", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as serving:
        assert serving.stdout is not None
        with client_of(serving.stdout.readline().split()[1]) as client:
            assert client.ask("/healthz")[0] == 200
        serving.terminate()
        assert serving.communicate()[1].endswith('"GET /healthz HTTP/1.1" 200 3\n')


def test_an_empty_directory_is_a_registry_to_come(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    with RegistryServer(tmp_path / "registry") as server, client_of(server.url) as client:
        assert client.ask("/api/v1/index.json")[0] == 404
        assert client.ask("/api/v1/search?q=x")[2] == b"[]"
        published(tmp_path)
        assert len(json.loads(client.ask("/api/v1/search?q=tiny")[2])) == 1


def test_a_server_without_ranges_sends_everything(registry: Path) -> None:
    path, data = object_of(registry)
    with NoRangeServer(registry) as server, client_of(server.url) as client:
        status, headers, body = client.ask(path, Range="bytes=0-9")
        assert (status, body, headers["Accept-Ranges"]) == (200, data, None)
        assert server.requests == [("GET", path, "bytes=0-9")]
        assert server.bytes_sent == len(data)


def test_the_server_comes_back_on_its_port(registry: Path) -> None:
    server = RegistryServer(registry)
    with server:
        url = server.url
    with server, client_of(url) as client:
        assert client.ask(MANIFEST)[0] == 200


def test_many_clients_at_once_get_the_right_bytes(server: RegistryServer, registry: Path) -> None:
    path, data = object_of(registry)
    wrong: list[int] = []

    def read(number: int) -> None:
        with client_of(server.url) as client:
            for start in range(number * 1000, len(data), 500_000):
                body = client.ask(path, Range=f"bytes={start}-{start + 99_999}")[2]
                if body != data[start : start + 100_000]:
                    wrong.append(start)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
