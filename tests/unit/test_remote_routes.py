"""Which proxy an origin is reached through, and which authorities are trusted."""

from pathlib import Path

import certifi
import pytest

from axonfs.errors import UsageError
from axonfs.remote.routes import Routes, Trust
from axonfs.remote.urls import parse_url


def through(routes: Routes, url: str) -> str | None:
    proxy = routes.proxy(parse_url(url).origin)
    return None if proxy is None else str(proxy)


def test_by_scheme() -> None:
    routes = Routes({"http": "http://one:3128", "https": "two:3129"})
    assert through(routes, "http://h/") == "http://one:3128/"
    assert through(routes, "https://h/") == "http://two:3129/"
    assert through(Routes({"all": "three"}), "https://h/") == "http://three/"
    assert through(Routes({}), "https://h/") is None


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("http://localhost:9/", True),
        ("http://127.0.0.1/", True),
        ("http://a.example.com/", True),
        ("http://example.com/", True),
        ("http://notexample.com/", False),
        ("http://port:8000/", True),
        ("http://port:8001/", False),
    ],
)
def test_no_proxy(url: str, direct: bool) -> None:
    routes = Routes({"http": "p:1", "no": "localhost,127.0.0.1, .example.com,port:8000"})
    assert (through(routes, url) is None) is direct


def test_star_is_everything() -> None:
    assert through(Routes({"http": "p:1", "no": "*"}), "http://h/") is None


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://one:1")
    monkeypatch.setenv("no_proxy", "here")
    routes = Routes.of_environment()
    assert through(routes, "http://there/") == "http://one:1/"
    assert through(routes, "http://here/") is None


@pytest.mark.parametrize("proxy", ["socks5://h:1", "https://h:1", "http://h:port"])
def test_a_proxy_that_cannot_be_used_is_named(proxy: str) -> None:
    with pytest.raises(UsageError, match="http_proxy cannot be used"):
        Routes({"http": proxy})


def test_a_missing_ca_bundle_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(UsageError, match="none"):
        Trust()
    with pytest.raises(UsageError, match="other"):
        Trust(tmp_path / "other.pem")


def test_a_ca_bundle_that_is_named_is_read_once(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(Path(certifi.where()).read_bytes())
    trust = Trust(bundle)
    bundle.unlink()
    assert trust.context.cert_store_stats()["x509_ca"] > 0


def test_the_system_s_authorities_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    context = Trust().context
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"
