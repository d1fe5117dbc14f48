"""Uploads: objects in parts, bodies that are cut, trickle or are not wanted, and a full disk."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
from http import HTTPStatus
from pathlib import Path

import pytest

import axonfs.serve.publishing
import axonfs.serve.uploads
import axonfs.storage.http
from axonfs.errors import (
    DeadlineError,
    NoSpaceError,
)
from axonfs.formats.chunktable import ChunkTable, chunk_digest
from axonfs.formats.layout import table_key
from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.serve import Access, RegistryServer, Tokens, WritingHandler
from tests.integration.serve.publishing.sending import (
    CHUNK,
    DATA,
    DIGEST,
    MANIFEST,
    PART,
    TABLE,
    UPLOAD,
    send,
    storage,
    upload,
    written,
)
from tests.integration.serve.test_access import bearer, running_with, token
from tests.integration.serve.test_serve import Client
from tests.support.disks import Disk
from tests.support.registry import SPEC, make_model


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
