"""Commands under proxy variables and CA bundles: only what would use a bad one fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import Run
from tests.support.faulty_origin import FaultyOrigin

INDEX = '{"apiVersion": "axonfs/v1", "models": []}'


@pytest.fixture
def bad(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everything that cannot be used, and nothing that an http registry on this machine needs."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "10.0.0.0/8, 127.0.0.0/8")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))


@pytest.mark.usefixtures("bad")
def test_commands_without_the_network_never_fail_for_a_proxy(run: Run) -> None:
    for line in (["cache", "stats"], ["cache", "list"], ["list"], ["config", "list"], ["status"]):
        done = run(*line)
        assert "proxy" not in done.err, line
        assert "SSL_CERT_FILE" not in done.err, line
    assert run("cache", "stats").code == 0


@pytest.mark.usefixtures("bad")
def test_a_registry_in_a_network_of_no_proxy_is_asked_directly(run: Run, tmp_path: Path) -> None:
    api = tmp_path / "www" / "api" / "v1"
    api.mkdir(parents=True)
    (api / "index.json").write_text(INDEX)
    with FaultyOrigin(tmp_path / "www") as origin:
        done = run("search", "--registry", origin.url, "llama")
    assert (done.code, done.err) == (0, "nothing matches\n")


@pytest.mark.usefixtures("bad")
@pytest.mark.parametrize(
    ("url", "named"),
    [("http://registry.invalid", "all_proxy"), ("https://127.0.0.1:1", "SSL_CERT_FILE")],
)
def test_what_would_use_it_names_the_variable(run: Run, url: str, named: str) -> None:
    done = run("search", "--registry", url, "llama")
    assert done.code == 1
    assert f"{named} cannot be used" in done.err
