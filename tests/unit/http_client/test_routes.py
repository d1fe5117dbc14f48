"""Which proxy an origin is reached through, and which authorities are trusted."""

from base64 import b64encode
from pathlib import Path

import certifi
import pytest

from axonfs.errors import UnavailableError
from axonfs.http_client.routes import Routes, Trust
from axonfs.http_client.urls import split_url


def through(routes: Routes, url: str) -> str | None:
    proxy = routes.proxy(split_url(url).origin)
    return None if proxy is None else str(proxy)


def test_by_scheme() -> None:
    routes = Routes({"http_proxy": "http://one:3128", "HTTPS_PROXY": " two:3129 "})
    assert through(routes, "http://h/") == "http://one:3128/"
    assert through(routes, "https://h/") == "http://two:3129/"
    assert through(Routes({"all_proxy": "three"}), "https://h/") == "http://three/"
    assert through(Routes({}), "https://h/") is None


def test_a_name_in_lower_case_goes_first() -> None:
    both = {"HTTP_PROXY": "upper:1", "http_proxy": "lower:2"}
    assert through(Routes(both), "http://h/") == "http://lower:2/"
    assert through(Routes({**both, "http_proxy": ""}), "http://h/") is None, "set to none"
    assert through(Routes({"https_proxy": "", "ALL_PROXY": "all:3"}), "https://h/") is None
    assert through(Routes({"HTTP_PROXY": "a:1", "NO_PROXY": "h"}), "http://h/") is None


def test_a_cgi_script_takes_no_proxy_from_a_request_header() -> None:
    cgi = {"REQUEST_METHOD": "GET", "HTTP_PROXY": "evil:1", "HTTPS_PROXY": "good:2"}
    assert through(Routes(cgi), "http://h/") is None
    assert through(Routes(cgi), "https://h/") == "http://good:2/"
    assert through(Routes({**cgi, "http_proxy": "mine:3"}), "http://h/") == "http://mine:3/"


NO_PROXY = (
    "localhost,127.0.0.1, .example.com *.example.org,port:8000,"
    "10.0.0.0/8,fd00::/8,[fe80::]/10,[::1]:8000,2001:db8::5,Capital.Net.,192.168.1.7:81"
)


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("http://localhost:9/", True),
        ("http://LOCALHOST/", True),
        ("http://127.0.0.1/", True),
        ("http://127.0.0.2/", False),
        ("http://a.example.com/", True),
        ("http://example.com/", True),
        ("http://notexample.com/", False),
        ("http://a.example.org/", True),
        ("http://port:8000/", True),
        ("http://port:8001/", False),
        ("http://10.200.3.4/", True),
        ("http://11.0.0.1/", False),
        ("http://10.example.net/", False),
        ("http://[fd12::1]:99/", True),
        ("http://[fe80::1]/", True),
        ("http://[::1]:8000/", True),
        ("http://[::1]/", False),
        ("http://[2001:db8:0::5]:7/", True),
        ("http://[::ffff:10.1.2.3]/", True),
        ("http://sub.capital.net/", True),
        ("http://capital.net./", True),
        ("http://192.168.1.7:81/", True),
        ("http://192.168.1.7/", False),
    ],
)
def test_no_proxy(url: str, direct: bool) -> None:
    routes = Routes({"http_proxy": "p:1", "no_proxy": NO_PROXY})
    assert (through(routes, url) is None) is direct


@pytest.mark.parametrize("odd", ["", ",", ":", "[", "/8", "10.0.0.0/99", "h:port", "..", "[::1"])
def test_an_odd_entry_of_no_proxy_matches_nothing(odd: str) -> None:
    assert through(Routes({"http_proxy": "p:1", "no_proxy": odd}), "http://h/") is not None


def test_star_is_everything() -> None:
    for text in ("*", "a, *", "* b"):
        assert through(Routes({"http_proxy": "p:1", "no_proxy": text}), "http://h/") is None


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://one:1")
    monkeypatch.setenv("no_proxy", "here")
    routes = Routes.of_environment()
    assert through(routes, "http://there/") == "http://one:1/"
    assert through(routes, "http://here/") is None


@pytest.mark.parametrize("proxy", ["socks5://h:1", "https://h:1", "http://h:port"])
def test_a_proxy_that_cannot_be_used_fails_what_would_use_it(proxy: str) -> None:
    routes = Routes({"ALL_PROXY": proxy, "http_proxy": "good:1", "NO_PROXY": "direct"})
    assert through(routes, "http://h/") == "http://good:1/"
    assert through(routes, "https://direct/") is None
    with pytest.raises(UnavailableError, match="ALL_PROXY cannot be used") as caught:
        through(routes, "https://h/")
    assert not caught.value.transient


def test_credentials_of_a_proxy_may_be_percent_encoded() -> None:
    proxy = Routes({"http_proxy": "http://me:p%40s%2Fs@h:1"}).proxy(split_url("http://x").origin)
    assert proxy is not None
    assert proxy.credentials == {"Authorization": "Basic " + b64encode(b"me:p@s/s").decode()}
    assert "p%40s" not in repr(proxy)


def test_a_missing_ca_bundle_fails_what_would_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    for trust, variable in ((Trust(), "SSL_CERT_FILE"), (Trust(tmp_path / "none"), "ca_bundle")):
        with pytest.raises(UnavailableError, match=rf"{variable} cannot be used.*none"):
            _ = trust.context


def test_a_ca_bundle_that_is_named_is_read_once(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(Path(certifi.where()).read_bytes())
    trust = Trust(bundle)
    _ = trust.context
    bundle.unlink()
    assert trust.context.cert_store_stats()["x509_ca"] > 0


def test_the_system_s_authorities_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    context = Trust().context
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"
