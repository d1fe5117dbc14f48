"""Tokens of the embedded server: who may read what, and what is said to the others."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.errors import AxonError, NotFoundError, UsageError
from axonfs.formats.listing import parse_index
from axonfs.serve import (
    Access,
    Grant,
    RegistryHandler,
    RegistryServer,
    Tokens,
    WritingHandler,
    access_log,
    create_token,
    read_tokens,
    revoke_token,
)
from axonfs.serve.connections import REQUEST_SECONDS
from tests.integration.serve.test_serve import MANIFEST, Client, client_of, object_of
from tests.support.commands import Run
from tests.support.registry import published

VIT = "/api/v1/models/vision/vit/1.0.0/manifest.yaml"
INDEX = "/api/v1/index.json"


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """With a model in each of two namespaces."""
    published(tmp_path, spec="vision/vit@1.0.0", seed=1)
    return published(tmp_path)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tmp_path / "server-tokens.yaml"


def token(file: Path, name: str, **rights: str) -> str:
    given = {right: frozenset([namespace]) for right, namespace in rights.items()}
    return create_token(file, Grant(name, **given))  # type: ignore[arg-type]


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@contextlib.contextmanager
def served(registry: Path, access: Access) -> Iterator[Client]:
    with running_with(registry, access) as server, client_of(server.url) as client:
        yield client


@contextlib.contextmanager
def running_with(
    registry: Path,
    access: Access,
    handler: type[RegistryHandler] = WritingHandler,
    *,
    request_seconds: float = REQUEST_SECONDS,
) -> Iterator[RegistryServer]:
    server = RegistryServer(
        registry, "127.0.0.1", 0, handler, access=access, request_seconds=request_seconds
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


def test_a_private_registry_needs_a_token(registry: Path, tokens: Path) -> None:
    reader = token(tokens, "reader", read="*")
    path, data = object_of(registry)
    with served(registry, Access(Tokens(tokens), private=True)) as client:
        for url in ("/", INDEX, MANIFEST, path, "/api/v1/search?q=tiny", "/api/v1/none"):
            status, headers, body = client.ask(url)
            assert (status, body) == (401, b"401 the request needs a token\n")
            challenges = ['Bearer realm="axonfs"', 'Basic realm="axonfs"']
            assert headers.get_all("WWW-Authenticate") == challenges
        assert client.ask(MANIFEST, **bearer("wrong"))[0] == 401
        assert client.ask(path, **bearer(reader))[2] == data
        assert client.ask(path, **bearer(reader))[1]["Cache-Control"].startswith("private, ")
        assert client.ask("/healthz")[0] == 200


def test_a_browser_gives_the_token_as_a_password(registry: Path, tokens: Path) -> None:
    reader = token(tokens, "reader", read="*")
    with served(registry, Access(Tokens(tokens), private=True)) as client:
        for pair, status in ((f"me:{reader}", 200), (reader, 401), ("me:wrong", 401)):
            encoded = base64.b64encode(pair.encode()).decode()
            assert client.ask(INDEX, Authorization=f"Basic {encoded}")[0] == status
        for header in ("Basic !", "Basic /w==", "Basic \xff", "Bearer", "Digest x", ""):
            assert client.ask(INDEX, Authorization=header)[0] == 401


def test_a_token_shows_its_namespaces_only(registry: Path, tokens: Path) -> None:
    secret = token(tokens, "nlp", read="nlp")
    with served(registry, Access(Tokens(tokens), private=True)) as client:
        assert client.ask(MANIFEST, **bearer(secret))[0] == 200
        status, _, body = client.ask(VIT, **bearer(secret))
        assert (status, body) == (403, b"403 the token 'nlp' may not read this\n")
        assert client.ask(VIT.replace("vit", "none"), **bearer(secret))[0] == 403
        assert client.ask("/api/v1/models/vision%2fvit/versions.json", **bearer(secret))[0] == 403
        listings, _ = parse_index(client.ask(INDEX, **bearer(secret))[2])
        assert [one.spec.model for one in listings] == ["nlp/tiny"]
        found = json.loads(client.ask("/api/v1/search?q=", **bearer(secret))[2])
        assert [one["namespace"] for one in found] == ["nlp"]


def test_to_publish_or_to_remove_includes_to_read(registry: Path, tokens: Path) -> None:
    secrets = [token(tokens, "ci", publish="nlp"), token(tokens, "boss", remove="nlp")]
    with served(registry, Access(Tokens(tokens), private=True)) as client:
        for secret in secrets:
            assert client.ask(MANIFEST, **bearer(secret))[0] == 200
            assert client.ask(VIT, **bearer(secret))[0] == 403


def test_anyone_reads_a_registry_that_is_not_private(registry: Path, tokens: Path) -> None:
    """But a wrong token is told so, rather than served as a stranger."""
    token(tokens, "ci", publish="nlp")
    with served(registry, Access(Tokens(tokens))) as client:
        status, headers, _ = client.ask(object_of(registry)[0])
        assert (status, headers["Cache-Control"][:7]) == (200, "public,")
        status, _, body = client.ask(MANIFEST, **bearer("wrong"))
        assert (status, body) == (401, b"401 the request has a token that is not valid here\n")


def test_a_revoked_token_ends_at_once_and_a_new_one_works(registry: Path, tokens: Path) -> None:
    first = token(tokens, "first", read="*")
    with served(registry, Access(Tokens(tokens), private=True)) as client:
        second = token(tokens, "second", read="*")
        assert client.ask(INDEX, **bearer(second))[0] == 200
        revoke_token(tokens, "first")
        assert client.ask(INDEX, **bearer(first))[0] == 401
        assert client.ask(INDEX, **bearer(second))[0] == 200


def test_a_typo_in_the_file_shuts_nobody_out(
    registry: Path, tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reader = token(tokens, "reader", read="*")
    with served(registry, Access(Tokens(tokens), private=True)) as client:
        tokens.write_text("{")
        assert client.ask(INDEX, **bearer(reader))[0] == 200
        assert "the tokens of before stay valid: the tokens file is not YAML" in caplog.text


def test_the_access_log_has_the_token_s_name_and_never_the_secret(
    registry: Path, tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reader = token(tokens, "reader", read="*")
    caplog.set_level(logging.INFO, logger=access_log.name)
    with served(registry, Access(Tokens(tokens))) as client:
        client.ask(INDEX, **bearer(reader))
        client.ask(INDEX)
        client.ask(INDEX, **bearer("wrong"))
    lines = [record.getMessage() for record in caplog.records if record.name == access_log.name]
    assert [line.split()[2] for line in lines] == ["reader", "-", "-"]
    assert reader not in caplog.text
    assert "wrong" not in caplog.text


def test_a_file_keeps_digests_and_is_closed_to_others(tokens: Path) -> None:
    secret = token(tokens, "ci", publish="nlp")
    assert secret.startswith("axonfs_")
    assert len(secret) == len("axonfs_") + 43
    assert secret not in tokens.read_text()
    assert tokens.stat().st_mode & 0o777 == 0o600
    for mode, fine in ((0o640, True), (0o400, True), (0o644, False), (0o620, False)):
        tokens.chmod(mode)
        if fine:
            assert [grant.name for grant in read_tokens(tokens).values()] == ["ci"]
        else:
            with pytest.raises(UsageError, match=f"its mode {mode:04o} opens the tokens"):
                read_tokens(tokens)
    tokens.chmod(0o640)
    create_token(tokens, Grant("other", read=frozenset("*")))
    assert tokens.stat().st_mode & 0o777 == 0o640, "the server's group may have to read it"


def test_another_user_s_file_is_refused(tokens: Path) -> None:
    token(tokens, "ci", publish="nlp")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    os.chown(tokens, 1234, -1)
    with pytest.raises(UsageError, match=r"belongs to another user \(1234\)"):
        read_tokens(tokens)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "not a mapping of tokens"),
        ("a b: {}", "a token's name has letters"),
        ("ci: {}", "ci: it has no sha256"),
        ("ci: {sha256: abc}", "ci: it has no sha256"),
        (f"ci: {{sha256: {'a' * 64}, admin: true}}", "it has keys other than"),
        (f"ci: {{sha256: {'a' * 64}, read: nlp}}", "a right is a list of namespaces"),
        (f"ci: {{sha256: {'a' * 64}, read: ['..']}}", r"'\.\.' is not a namespace"),
    ],
)
def test_a_malformed_file_is_named(tokens: Path, text: str, said: str) -> None:
    tokens.touch(0o600)
    tokens.write_text(text)
    with pytest.raises(UsageError, match=said):
        Tokens(tokens)


def test_names_are_unique_and_plain(tokens: Path) -> None:
    token(tokens, "ci", publish="nlp")
    faults: list[tuple[type[AxonError], str, str]] = [
        (UsageError, "ci", "there is a token 'ci'"),
        (UsageError, "../ci", "a token's name has letters"),
    ]
    for kind, name, said in faults:
        with pytest.raises(kind, match=said):
            token(tokens, name, publish="nlp")
    with pytest.raises(NotFoundError, match="there is no token 'other'"):
        revoke_token(tokens, "other")


def test_the_commands(run: Run, tokens: Path, registry: Path) -> None:
    made = run("registry", "token", "create", tokens, "ci", "--publish", "nlp", "--read", "*")
    assert made.code == 0
    assert made.out.startswith("axonfs_")
    assert "shown once" in made.err
    listed = run("registry", "token", "list", tokens).out.splitlines()
    assert [line.split()[:3] for line in listed] == [
        ["NAME", "READ", "PUBLISH"],
        ["ci", "*", "nlp"],
    ]
    assert "no right" in run("registry", "token", "create", tokens, "x").err
    assert (
        "hub's namespace" in run("registry", "token", "create", tokens, "x", "--publish", "hf").err
    )
    assert run("registry", "token", "revoke", tokens, "ci").out == "ci is revoked\n"
    assert json.loads(run("registry", "token", "list", tokens, "--json").out) == []
    inside = registry / "tokens.yaml"
    token(inside, "ci", read="*")
    for arguments, said in (
        (["--tokens", tokens.with_name("none")], "there is no tokens file"),
        (["--tokens", inside], "is in the directory that is served"),
        (["--private"], "--private needs tokens"),
        (["--cert", tokens], "--cert and --key belong together"),
    ):
        done = run("registry", "serve", registry, *arguments)
        assert (done.code, said in done.err) == (2, True)


def test_tokens_that_would_come_over_plain_http_are_told(tokens: Path, registry: Path) -> None:
    token(tokens, "ci", publish="nlp")
    command = [sys.executable, "-m", "axonfs", "registry", "serve", str(registry), "--port", "0"]
    for host, told in (("0.0.0.0", True), ("127.0.0.1", False)):
        line = [*command, "--tokens", str(tokens), "--host", host]
        pipe = subprocess.PIPE
        with subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True) as serving:
            assert serving.stdout
            assert serving.stdout.readline().startswith("serving http://127.0.0.1:")
            serving.terminate()
            assert ("tokens come over plain HTTP" in serving.communicate()[1]) == told
