"""Registering with MLOS Core: what it is sent, and what is said when it does not take it."""

from __future__ import annotations

import socket

import pytest
import trio

from axonfs.errors import AccessDeniedError, AxonError, UnavailableError, UsageError
from axonfs.http_client import mlos_core
from tests.support.commands import Run
from tests.support.core import Core
from tests.support.registry import RegistryServer, published

MODEL = {"model_id": "nlp/tiny@1.0.0", "path": "/models/nlp/tiny/1.0.0"}


async def test_the_model_is_posted_as_json() -> None:
    with Core() as running:
        await mlos_core.register(running.url + "/", MODEL)
        ((path, headers, document),) = running.posted
    assert path == "/models/register"
    assert headers["content-type"] == "application/json"
    assert document == MODEL


@pytest.mark.parametrize(("status", "kind"), [(401, AccessDeniedError), (500, AxonError)])
async def test_a_refusal_has_the_core_s_own_words(status: int, kind: type[AxonError]) -> None:
    words = rf"status {status}: no such plugin\?\[2J: onnx"
    with (
        Core(status, b"no such plugin\x1b[2J: onnx\n" + b"x" * 200_000) as running,
        pytest.raises(kind, match=words) as caught,
    ):
        await mlos_core.register(running.url, MODEL)
    assert len(str(caught.value)) < 500


async def test_a_redirect_is_a_refusal() -> None:
    with Core(302, b"") as running, pytest.raises(AxonError, match="status 302"):
        await mlos_core.register(running.url, MODEL)


async def test_a_core_that_is_not_there_is_said_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=r"does not answer.*MLOS_CORE_ENDPOINT"):
            await mlos_core.register(endpoint, MODEL)


async def test_a_core_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlos_core, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=r"within 0\.2 s"), trio.fail_after(20):
            await mlos_core.register(endpoint, MODEL)


@pytest.mark.parametrize("endpoint", ["localhost:8080", "ftp://core", "http://"])
async def test_an_endpoint_that_is_no_url_is_wrong_usage(endpoint: str) -> None:
    with pytest.raises(UsageError, match="MLOS_CORE_ENDPOINT is not a URL"):
        await mlos_core.register(endpoint, MODEL)


def test_without_a_mount_there_is_no_path(
    run: Run, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = published(tmp_path_factory.mktemp("registry"), {"w.bin": 10})
    with RegistryServer(directory) as server, Core() as running:
        monkeypatch.setenv("MLOS_CORE_ENDPOINT", running.url)
        done = run("register", "nlp/tiny", "--registry", server.url)
        assert running.posted == []
    assert (done.code, done.out) == (1, "")
    assert "nlp/tiny@1.0.0: nothing is mounted" in done.err
    assert "axonfs mount" in done.err
