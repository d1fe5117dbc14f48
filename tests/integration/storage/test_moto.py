"""What AWS has and other stores mostly lack: roles, encryption by KMS, requesters who pay."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from axonfs.names import parse_spec
from axonfs.publish import PublishProgress, publish
from axonfs.s3 import Account, S3Signer, place_of
from axonfs.storage import S3Storage
from axonfs.storage.parts import PART_BYTES
from tests.support.moto import moto
from tests.support.registry import make_model
from tests.support.seaweed import NO_AWS

SPEC = parse_spec("nlp/tiny@1.0.0")
URL = "s3://models/reg"
KEY = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with moto(tmp_path_factory.mktemp("moto") / "log") as url:
        yield url


@pytest.fixture(autouse=True)
def aws(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty AWS with the bucket `models`, and an account that may do everything."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, text in {**NO_AWS, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    Account(place_of(URL)).client().create_bucket(Bucket="models")
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.mark.usefixtures("keys")
def test_objects_are_encrypted_with_the_key_of_the_url(tmp_path: Path) -> None:
    """Also those in parts, whose ETags then are no MD5 by which parts could be known again."""
    url = f"{URL}?sse=aws:kms&sse_kms_key_id={KEY}&request_payer=requester"
    model = make_model(tmp_path / "model", {"a": PART_BYTES + 1})

    def stop_late(progress: PublishProgress) -> None:
        if progress.bytes_done > PART_BYTES:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        publish(model, SPEC, S3Storage(url), progress=stop_late)
    publish(model, SPEC, S3Storage(url))
    client = Account(place_of(URL)).client()
    for listed in S3Storage(URL).list("objects/"):
        found = client.head_object(Bucket="models", Key=f"reg/{listed.key}")
        assert found["ServerSideEncryption"] == "aws:kms"
        assert found["SSEKMSKeyId"] == KEY
    (large,) = [one for one in S3Storage(URL).list("objects/") if one.size > PART_BYTES]
    body = client.get_object(Bucket="models", Key=f"reg/{large.key}")["Body"].read()
    assert body == (model / "a").read_bytes()


def give(kind: str, server: str, endpoint: str, tmp_path: Path) -> dict[str, str]:
    """The variables that a platform sets for its programs."""
    if kind == "web identity":
        (tmp_path / "token").write_text("a.web.identity.token.of.some.length")
        return {
            "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/reader",
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    if kind == "container role":
        return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{server}/container"}
    if kind == "instance role":
        return {
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": server,
            "AWS_EC2_METADATA_DISABLED": "false",
        }
    (tmp_path / "config").write_text(
        "[profile models]\naws_access_key_id = KEY\naws_secret_access_key = s\n"
        f"aws_session_token = t\nendpoint_url = {endpoint}\n"
    )
    return {"AWS_PROFILE": "models", "AWS_CONFIG_FILE": str(tmp_path / "config")}


class Credentials(BaseHTTPRequestHandler):
    """The servers of credentials of containers and of instances."""

    def do_GET(self) -> None:
        given = {
            "Code": "Success",
            "AccessKeyId": "KEY",
            "SecretAccessKey": "s",
            "Token": "t",
            "Expiration": "2099-01-01T00:00:00Z",
        }
        listing = self.path.endswith("/security-credentials/")
        body = b"role" if listing else json.dumps(given).encode()
        self._answer(b"token" if self.command == "PUT" else body)

    do_PUT = do_GET  # noqa: N815

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Credentials) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", ["web identity", "container role", "instance role", "profile"])
def test_credentials_come_from_where_the_platform_has_them(
    kind: str, server: str, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in give(kind, server, endpoint, tmp_path).items():
        monkeypatch.setenv(name, text)
    signed = S3Signer().sign(f"{URL}/objects/x")
    headers = {name.lower(): text for name, text in signed.headers.items()}
    assert "Credential=" in headers["authorization"]
    assert headers["x-amz-security-token"]
    assert str(signed.url) == f"{endpoint}/models/reg/objects/x"
    own = S3Storage(f"{URL}-{kind.partition(' ')[0]}")
    done = publish(make_model(tmp_path / "model", {"a": 10}), SPEC, own)
    assert done.files == 2
