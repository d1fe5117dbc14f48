"""Publishing over HTTP: what a client sends is compared with its digests; tokens have limits."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

import axonfs.serve.publishing
import axonfs.serve.uploads
import axonfs.storage.http
from axonfs.errors import (
    AccessDeniedError,
    AxonError,
    DeadlineError,
    NoSpaceError,
    UnsupportedError,
    UsageError,
)
from axonfs.formats.chunktable import ChunkTable, chunk_digest
from axonfs.formats.layout import manifest_key, object_key, signatures_key, table_key
from axonfs.formats.listing import parse_index
from axonfs.formats.manifest import parse_manifest
from axonfs.http_client import Limits
from axonfs.names import Spec, parse_spec
from axonfs.publish import PublishProgress, publish
from axonfs.publish.registry import Registry
from axonfs.serve import Access, RegistryServer, Tokens, WritingHandler
from axonfs.storage import HttpStorage, Storage
from axonfs.storage.parts import PART_BYTES
from tests.integration.serve.test_access import bearer, running_with, token
from tests.integration.serve.test_serve import Client, client_of
from tests.support.commands import Run
from tests.support.disks import Disk
from tests.support.nginx import nginx
from tests.support.registry import SPEC, at_once, make_model
from tests.support.serving import QuietHandler, Served
from tests.support.signing import key_pair

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


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    (tmp_path / "registry").mkdir()
    return tmp_path / "registry"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tmp_path / "server-tokens.yaml"


@pytest.fixture
def secret(tokens: Path) -> str:
    return token(tokens, "ci", publish="nlp")


@pytest.fixture
def server(registry: Path, tokens: Path, secret: str) -> Iterator[RegistryServer]:
    with running_with(registry, Access(Tokens(tokens))) as server:
        yield server


@pytest.fixture
def client(server: RegistryServer) -> Iterator[Client]:
    with client_of(server.url) as client:
        yield client


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


def test_a_published_model_is_what_a_directory_has(
    server: RegistryServer, registry: Path, secret: str, tmp_path: Path
) -> None:
    sizes = {"a": 2 * PART_BYTES + 1, "sub/b": 1000, "empty": 0}
    model = make_model(tmp_path / "model", sizes)
    seen: list[int] = []
    done = publish(
        model,
        parse_spec(SPEC),
        storage(server, secret),
        progress=lambda state: seen.append(state.bytes_done),
    )
    assert seen[-1] == done.bytes
    assert 0 < sorted(seen)[len(seen) // 2] < done.bytes, "it moves with the parts"
    assert done.new_bytes == done.bytes == sum(sizes.values()) + 63
    publish(model, parse_spec(SPEC), tmp_path / "directory")
    same = [
        path for path in written(registry) if not path.endswith(("manifest.yaml", "index.json"))
    ]
    assert written(registry) == written(tmp_path / "directory")
    for path in same:
        assert (registry / path).read_bytes() == (tmp_path / "directory" / path).read_bytes()
    again = publish(model, parse_spec(SPEC), storage(server, secret))
    assert (again.already, again.new_bytes) == (True, 0)
    (model / "sub/b").write_bytes(b"changed")
    with pytest.raises(AxonError, match="already published with other files"):
        publish(model, parse_spec(SPEC), storage(server, secret))


def test_an_interrupted_publish_sends_only_what_is_missing(
    registry: Path, tokens: Path, secret: str, tmp_path: Path
) -> None:
    """Also after a restart of the server."""
    model = make_model(tmp_path / "model", {"a": 5 * PART_BYTES + 1})
    sent: list[str] = []

    class Counting(WritingHandler):
        def do_PUT(self) -> None:  # noqa: N802
            if "uploads" in self.path:
                sent.append(self.path)
            super().do_PUT()

    def stop(progress: PublishProgress) -> None:
        if len(sent) > 2:
            raise KeyboardInterrupt

    with (
        running_with(registry, Access(Tokens(tokens)), Counting) as server,
        pytest.raises(KeyboardInterrupt),
    ):
        publish(model, parse_spec(SPEC), storage(server, secret), progress=stop)
    assert not [path for path in written(registry) if "manifest" in path]
    with running_with(registry, Access(Tokens(tokens)), Counting) as server:
        sent.clear()
        publish(model, parse_spec(SPEC), storage(server, secret))
        assert len([path for path in sent if f"/{5 * PART_BYTES + 1}/" in path]) < 6
    assert f"api/v1/models/{SPEC.replace('@', '/')}/manifest.yaml" in written(registry)


def test_publishers_at_once_lose_nothing(
    server: RegistryServer, registry: Path, tokens: Path, secret: str, tmp_path: Path
) -> None:
    """Of the same file, with the same token and another one, and one in the directory itself."""
    model = make_model(tmp_path / "model", {"a": PART_BYTES + 1})
    other = token(tokens, "other", publish="*")
    places: list[Path | Storage] = [storage(server, secret), storage(server, other), registry]
    specs = [parse_spec(f"nlp/m{number}@1.0.0") for number in range(9)]
    at_once(lambda spec: publish(model, spec, places[int(spec.name[1:]) % 3]), specs)
    listings, _ = parse_index((registry / "api/v1/index.json").read_bytes())
    assert [one.spec for one in listings] == specs
    assert list((registry / "objects/tmp").rglob("*-*")) == []


def test_an_answer_that_is_lost_is_asked_for_again(
    registry: Path, tokens: Path, secret: str, tmp_path: Path
) -> None:
    lost: list[tuple[str | None, str]] = []

    class Losing(WritingHandler):
        def _done(self, status: HTTPStatus) -> None:
            if (self.command, self.path) in lost:
                super()._done(status)
            else:
                lost.append((self.command, self.path))
                self.close_connection = True

    with running_with(registry, Access(Tokens(tokens)), Losing) as server:
        model = make_model(tmp_path / "model", {"a": 1000})
        assert not publish(model, parse_spec(SPEC), storage(server, secret)).already
    assert len(lost) == 5, "two objects in one part each, and the manifest"


def test_a_comparison_that_takes_long_is_waited_for(
    server: RegistryServer,
    registry: Path,
    secret: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But not for ever."""
    monkeypatch.setattr(axonfs.serve.publishing, "PATIENCE", 0.0)
    model = make_model(tmp_path / "model", {"a": 8 << 20})
    publish(model, parse_spec(SPEC), storage(server, secret))
    assert MANIFEST[1:] in written(registry)
    monkeypatch.setattr(axonfs.serve.publishing.Publishing, "settle", lambda *_: None)
    monkeypatch.setattr(axonfs.storage.http, "COMPARE_SECONDS", 0.2)
    (model / "a").write_bytes(b"new")
    with pytest.raises(DeadlineError, match="has compared an object with its digests for 0 s"):
        publish(model, parse_spec("nlp/tiny@1.1.0"), storage(server, secret))


def test_a_token_is_for_its_namespaces(
    server: RegistryServer, registry: Path, tokens: Path, secret: str, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "model", {"a": 1000})
    reader = token(tokens, "reader", read="*")
    for whose, spec, error, said in (
        (secret, "vision/a@1.0.0", AccessDeniedError, "the token 'ci' may not publish into vision"),
        (reader, SPEC, AccessDeniedError, "the token 'reader' may not publish into nlp"),
        (
            "wrong",
            SPEC,
            AccessDeniedError,
            "not valid here .*; to replace the token",
        ),
        (None, SPEC, AccessDeniedError, "the request needs a token .*; to add a token"),
        (secret, "hf/a@1.0.0", UsageError, "mounts look for models below hf/ on that hub"),
    ):
        with pytest.raises(error, match=said):
            publish(model, parse_spec(spec), storage(server, whose))
    assert written(registry) == []


def test_what_the_server_itself_refuses(
    client: Client, registry: Path, tokens: Path, secret: str, tmp_path: Path
) -> None:
    """Whatever a client sends: a stranger may have written it."""
    assert upload(client, secret) == 201
    before = written(registry)
    boss, reader = token(tokens, "boss", publish="*"), token(tokens, "reader", read="*")
    good = manifest(parse_spec(SPEC), tmp_path)
    vision = manifest(parse_spec("vision/a@1.0.0"), tmp_path)
    lacking = good.replace(DIGEST.encode(), b"ab" * 32)
    table = hashlib.sha256(TABLE.encode()).hexdigest().encode()
    words = ", ".join(f"{number}{'x' * 200}" for number in range(100)).encode()
    wordy = re.sub(rb"(?m)^  tags: .*(\n  - .*)*$", b"  tags: [" + words + b"]", good)
    assert len(parse_manifest(wordy).tags) == 100
    uploads = "/api/v1/uploads"
    for whose, method, path, body, status, said in (
        (secret, "PUT", VISION, vision, 403, "may not publish into vision"),
        (reader, "PUT", MANIFEST, good, 403, "the token 'reader' may not publish into nlp"),
        (reader, "PUT", f"{UPLOAD}/0", DATA[:PART], 403, "may not publish"),
        (secret, "DELETE", MANIFEST, b"", 403, "may not remove versions from nlp"),
        (boss, "PUT", VISION.replace("vision", "hf"), good, 403, "below hf/ on that hub"),
        (boss, "PUT", VISION.replace("manifest.yaml", "yanked"), b"", 404, "does not have this"),
        (secret, "PUT", MANIFEST.replace("1.0.0", "latest"), good, 403, "may not be called latest"),
        (secret, "PUT", MANIFEST.replace("tiny", "other"), good, 400, "not of nlp/other@1.0.0"),
        (secret, "PUT", MANIFEST, lacking, 409, "'a.bin': the registry does not have the object"),
        (secret, "PUT", MANIFEST, good.replace(table, b"ab" * 32), 409, "does not match"),
        (secret, "PUT", MANIFEST, wordy, 400, "more than 16,384 bytes in the index"),
        (secret, "PUT", MANIFEST, b"no manifest", 400, ""),
        (secret, "PUT", MANIFEST, bytes((16 << 20) + 1), 413, "more than 16,777,216 bytes"),
        (secret, "PUT", "/api/v1/index.json", good, 404, "nothing can be written there"),
        (secret, "PUT", "/api/v1/models/nlp/tiny/versions.json", good, 404, "nothing can be"),
        (secret, "PUT", f"/{object_key(DIGEST)}", DATA, 404, "nothing can be written there"),
        (secret, "DELETE", f"/{object_key(DIGEST)}", b"", 404, "nothing can be written there"),
        (secret, "PUT", f"/{table_key(DIGEST)}", b"x", 404, "nothing can be written there"),
        (secret, "PUT", "/index.html", b"x", 404, "nothing can be written there"),
        (secret, "PUT", MANIFEST.replace("tiny", "../../x"), good, 404, "nothing can be written"),
        (secret, "PUT", MANIFEST.replace("tiny", "%2e%2e"), good, 404, "nothing can be written"),
        (secret, "PUT", f"{uploads}/{'.' * 64}/1/65536/0", b"x", 404, "nothing can be written"),
        (secret, "PUT", f"{UPLOAD}/0", DATA[: PART - 1], 400, "the part has another length"),
        (secret, "PUT", f"{UPLOAD}/2", DATA, 400, "the object has no such part"),
        (secret, "PUT", f"{uploads}/{DIGEST}/9/1/0", b"x", 400, "a part has 65,536 to"),
        (secret, "PUT", f"{uploads}/{DIGEST}/{1 << 54}/65536/0", b"x", 400, "an object has"),
        (secret, "PUT", f"{uploads}/{DIGEST}/{1 << 50}/65536/0", b"x", 400, "1,048,576 parts"),
        (secret, "POST", UPLOAD, b"no table", 400, "the chunk table has"),
        (secret, "PATCH", MANIFEST, b"x", 405, ""),
        (secret, "POST", MANIFEST, b"x", 405, "POST means nothing here"),
    ):
        client.connection.close()
        found, body = send(client, whose, method, path, body)
        assert (found, said in body.decode()) == (status, True), (method, path, body)
    assert written(registry) == before


def test_a_published_manifest_never_changes(
    client: Client, registry: Path, tokens: Path, secret: str, tmp_path: Path
) -> None:
    boss = token(tokens, "boss", remove="nlp")
    good = manifest(parse_spec(SPEC), tmp_path)
    upload(client, secret)
    assert send(client, secret, "PUT", MANIFEST, good)[0] == 201
    assert send(client, secret, "PUT", MANIFEST, good)[0] == 204
    other = good.replace(b"nlp", b"nlp ", 1) + b"\n"
    assert parse_manifest(other).spec == parse_spec(SPEC)
    assert send(client, secret, "PUT", MANIFEST, other)[0] == 412
    assert (registry / MANIFEST[1:]).read_bytes() == good
    assert send(client, secret, "PUT", MANIFEST.replace("manifest.yaml", "yanked"))[0] == 204
    assert parse_index((registry / "api/v1/index.json").read_bytes())[0] == []
    assert send(client, boss, "DELETE", MANIFEST)[0] == 204
    assert send(client, boss, "DELETE", MANIFEST)[0] == 204
    assert not (registry / MANIFEST[1:]).exists()


@pytest.mark.parametrize(
    ("data", "table"),
    [
        (DATA[:-1] + b"x", TABLE),
        (DATA, ChunkTable(len(DATA), CHUNK, TABLE.digests[::-1])),
        (DATA, ChunkTable(3 * CHUNK, CHUNK, TABLE.digests[: 3 * 32])),
    ],
)
def test_bytes_or_a_table_that_do_not_match_are_dropped(
    client: Client, registry: Path, secret: str, data: bytes, table: ChunkTable
) -> None:
    assert upload(client, secret, data, table.encode()) == 422
    assert written(registry) == []
    assert send(client, secret, "GET", UPLOAD)[1] == b'{"parts": []}'
    assert upload(client, secret) == 201
    assert send(client, secret, "POST", UPLOAD, table.encode())[0] in (200, 201, 400, 422)
    assert (registry / table_key(DIGEST)).read_bytes() == TABLE.encode()


def test_an_object_that_lacks_its_table_gets_one(
    client: Client, registry: Path, secret: str
) -> None:
    upload(client, secret)
    (registry / table_key(DIGEST)).unlink()
    wrong = ChunkTable(len(DATA), CHUNK, TABLE.digests[::-1])
    assert send(client, secret, "POST", UPLOAD, wrong.encode())[0] == 422
    assert send(client, secret, "POST", UPLOAD, TABLE.encode())[0] == 201
    other = ChunkTable(len(DATA), 1 << 20, chunk_digest(DATA))
    assert send(client, secret, "POST", UPLOAD, other.encode())[0] == 200, "it keeps its own"


def test_an_upload_without_all_parts_is_not_ended(client: Client, secret: str) -> None:
    assert send(client, secret, "POST", UPLOAD, TABLE.encode())[0] == 409
    send(client, secret, "PUT", f"{UPLOAD}/1", DATA[PART:])
    assert send(client, secret, "GET", UPLOAD)[1] == b'{"parts": [1]}'
    status, said = send(client, secret, "POST", UPLOAD, TABLE.encode())
    assert (status, said) == (409, b"409 the object lacks 1 part\n")


def test_a_token_s_uploads_are_its_own(client: Client, tokens: Path, secret: str) -> None:
    other = token(tokens, "other", publish="*")
    send(client, secret, "PUT", f"{UPLOAD}/0", DATA[:PART])
    assert send(client, other, "GET", UPLOAD)[1] == b'{"parts": []}'


def test_unfinished_uploads_have_a_limit_and_an_end(
    client: Client,
    server: RegistryServer,
    registry: Path,
    secret: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(axonfs.serve.uploads, "MAX_UNFINISHED", 2)
    for letter, status in (("a", 204), ("b", 204), ("c", 429)):
        path = f"/api/v1/uploads/{letter * 64}/1/{PART}/0"
        assert send(client, secret, "PUT", path, b"x")[0] == status
    (old, *_) = drafts = sorted((registry / "objects/tmp/uploads/ci").iterdir())
    past = time.time() - axonfs.serve.uploads.EXPIRY_SECONDS - 1
    os.utime(old, (past, past))
    server.publishing.expire()
    assert sorted((registry / "objects/tmp/uploads/ci").iterdir()) == drafts[1:]
    assert send(client, secret, "PUT", f"/api/v1/uploads/{'c' * 64}/1/{PART}/0", b"x")[0] == 204


def test_a_body_that_is_not_wanted_does_not_become_a_request(
    client: Client, secret: str, registry: Path
) -> None:
    smuggled = b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n"
    for method, path in (("GET", "/healthz"), ("PUT", "/api/v1/index.json"), ("POST", "/")):
        client.connection.request(method, path, smuggled, {"Authorization": f"Bearer {secret}"})
        response = client.connection.getresponse()
        response.read()
        assert response.headers["Connection"] == "close"
    for fields in (
        {"Transfer-Encoding": "chunked"},
        {"Transfer-Encoding": "chunked", "Content-Length": "3"},
        {},
    ):
        client.connection.close()
        client.connection.putrequest("PUT", f"{UPLOAD}/0")
        for name, text in {**bearer(secret), **fields}.items():
            client.connection.putheader(name, text)
        client.connection.endheaders()
        assert client.connection.getresponse().status == 411


def test_a_body_that_trickles_is_ended(registry: Path, tokens: Path, secret: str) -> None:
    access = Access(Tokens(tokens))
    with (
        running_with(registry, access, request_seconds=0.3) as server,
        socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=0.1) as sock,
    ):
        path = f"/api/v1/uploads/{'a' * 64}/1000/{PART}/0"
        head = f"PUT {path} HTTP/1.1\r\nAuthorization: Bearer {secret}\r\nContent-Length: 1000\r\n"
        sock.sendall(head.encode() + b"\r\n")
        deadline, ended = time.monotonic() + 20, False
        while not ended and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                try:
                    sock.sendall(b"x")
                    ended = sock.recv(1) == b""
                except ConnectionError:
                    ended = True
        assert ended


def test_a_connection_goes_on_after_a_body_that_was_read(client: Client, secret: str) -> None:
    client.connection.connect()
    sock = client.connection.sock
    assert upload(client, secret) == 201
    assert client.ask("/healthz")[0] == 200
    assert client.connection.sock is sock


def test_curl_waits_for_the_word_to_go_on(
    server: RegistryServer, secret: str, tmp_path: Path
) -> None:
    (tmp_path / "part").write_bytes(DATA[:PART])
    for whose, codes in ((secret, "100 204"), ("wrong", "401")):
        command = ["curl", "-sv", "-T", str(tmp_path / "part"), f"{server.url}{UPLOAD}/0"]
        headers = ["-H", f"Authorization: Bearer {whose}", "-H", "Expect: 100-continue"]
        done = subprocess.run([*command, *headers], capture_output=True, text=True, check=True)
        assert " ".join(re.findall(r"< HTTP/1.1 (\d+)", done.stderr)) == codes


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk_is_said(tokens: Path, secret: str, tmp_path: Path) -> None:
    disk = Disk.tmpfs(tmp_path / "disk", 1 << 20)
    try:
        (tmp_path / "disk/registry").mkdir()
        with running_with(tmp_path / "disk/registry", Access(Tokens(tokens))) as server:
            model = make_model(tmp_path / "model", {"a": 2 << 20})
            with pytest.raises(NoSpaceError, match=r"no room for the object .*; make room on the"):
                publish(model, parse_spec(SPEC), storage(server, secret))
            disk.fill(leave=8192)
            os.truncate(model / "a", 1)
            with pytest.raises(NoSpaceError, match=r"disk (is full|has no room)"):
                publish(model, parse_spec(SPEC), storage(server, secret))
            assert "manifest.yaml" not in str(written(tmp_path / "disk/registry"))
    finally:
        disk.close()


class _Page(Served):
    """Answers every path with a page, as servers of web applications do."""

    def handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        class Handler(QuietHandler):
            def do_GET(self) -> None:  # noqa: N802
                self.answer(200, b"<html>")

        return Handler


class _Plain(Served):
    """`python -m http.server`."""

    def handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

        return Handler


def test_servers_that_take_no_uploads(
    run: Run, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written, neither there nor here."""
    monkeypatch.setenv("AXONFS_TOKEN", "x")
    monkeypatch.chdir(tmp_path)
    model = make_model(tmp_path / "model", {"a": 10})
    before = sorted(tmp_path.iterdir())
    with (
        nginx(registry, tmp_path / "registry/nginx") as real,
        running_with(registry, Access()) as ours,
        _Page() as page,
        _Plain() as plain,
    ):
        for url in (real, ours.url, page.url, plain.url):
            done = run("publish", model, SPEC, "--to", url)
            assert done.code == 1
            assert done.err.startswith(
                f"axonfs: {SPEC}: this server takes no uploads (from {url});"
            )
    assert sorted(tmp_path.iterdir()) == before
    assert not (registry / "api").exists()
    with pytest.raises(UnsupportedError), running_with(registry, Access()) as ours:
        storage(ours, "x").prepare()


def test_the_life_of_a_registry_over_http(
    run: Run,
    server: RegistryServer,
    registry: Path,
    tokens: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Copies in both directions, yanks and removals, with the token of the settings."""
    secret = token(tokens, "boss", publish="*", remove="*")
    monkeypatch.setattr(sys, "stdin", io.StringIO(secret))
    assert run("registry", "add", server.url, "--with-token").code == 0
    model = make_model(tmp_path / "model", {"a": 1000})
    other = tmp_path / "other"
    for version in ("1.0.0", "1.1.0"):
        assert run("publish", model, f"nlp/tiny@{version}", "--to", other).code == 0
    assert run("registry", "yank", "nlp/tiny@1.1.0", "--from", other).code == 0
    copied = run("registry", "copy", other, server.url)
    assert copied.out == "2 versions copied; 2 objects, 1.0 KiB new\n"
    assert run("registry", "copy", other, server.url).out.startswith("0 versions copied, 2 already")
    assert '"yanked"' in (registry / "api/v1/index.json").read_text()
    for spec in ("nlp/tiny@1.0.0", "nlp/tiny@1.1.0"):
        key = manifest_key(parse_spec(spec))
        assert (registry / key).read_bytes() == (other / key).read_bytes()
    assert run("registry", "yank", "nlp/tiny@1.1.0", "--undo", "--from", server.url).code == 0
    done = run("registry", "remove-version", "nlp/tiny@1.0.0", "--from", server.url, "--yes")
    assert done.out.startswith("removed: nlp/tiny@1.0.0, 2 files")
    assert run("registry", "check", registry).out == "1 version, 2 objects, 1.0 KiB: 0 faults\n"


def test_signatures_travel_too(
    run: Run,
    client: Client,
    server: RegistryServer,
    registry: Path,
    secret: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the manifest, and each in place of what was read."""
    monkeypatch.setenv("AXONFS_TOKEN", secret)
    for name in ("team", "other"):
        key_pair(tmp_path / "keys", name)
    model = make_model(tmp_path / "model", {"a": 1000})
    key = ["--sign-key", tmp_path / "keys/team.key"]
    assert run("publish", model, SPEC, "--to", server.url, *key).code == 0
    file = registry / signatures_key(parse_spec(SPEC))
    assert len(file.read_bytes().splitlines()) == 1
    other = ["--sign-key", tmp_path / "keys/other.key"]
    assert run("registry", "sign", SPEC, "--to", server.url, *other).code == 0
    both = file.read_bytes()
    assert len(both.splitlines()) == 2
    for headers, body, status in (
        ({}, both, 412),
        ({"If-Match": '"x"'}, both, 412),
        ({"If-None-Match": "*"}, both, 412),
        ({"If-None-Match": "*"}, b"no signature", 400),
    ):
        path = f"/{signatures_key(parse_spec(SPEC))}"
        client.connection.request("PUT", path, body, {**bearer(secret), **headers})
        response = client.connection.getresponse()
        assert (response.status, response.read()[:4]) == (status, f"{status} ".encode())
    assert file.read_bytes() == both


def test_who_may_only_remove_removes_all_of_a_version(
    server: RegistryServer, registry: Path, tokens: Path, secret: str, tmp_path: Path
) -> None:
    spec = parse_spec(SPEC)
    publish(make_model(tmp_path / "model", {"a": 1000}), spec, storage(server, secret))
    Registry(storage(server, secret)).yank(spec)
    Registry(storage(server, token(tokens, "janitor", remove="nlp"))).remove(spec)
    assert [path for path in written(registry) if "1.0.0" in path] == []


def test_registries_lists_are_made_by_the_server(server: RegistryServer, secret: str) -> None:
    """A client that wants to list or to replace them is told so."""
    made = storage(server, secret)
    with pytest.raises(AccessDeniedError, match="cannot be listed over HTTP"):
        list(made.list("objects/"))
    with pytest.raises(AxonError, match="nothing can be written there"):
        made.put("api/v1/index.json", b"{}")
    assert Registry(made).manifest(parse_spec(SPEC)) is None
