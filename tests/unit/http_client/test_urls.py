"""Which URLs are asked, where a redirect may lead, and what of a URL is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.errors import UnavailableError
from axonfs.http_client.urls import Origin, carried, follow, shown, split_url, target_of


def test_a_url_is_taken_apart_and_written_again() -> None:
    url = split_url("HTTPS://User:p%40ss@Example.COM:8443/a b/ü?q=1 2#part")
    assert url.origin == Origin("https", "example.com", 8443)
    assert str(url) == "https://example.com:8443/a%20b/%C3%BC?q=1%202"
    assert url.credentials == {"Authorization": "Basic VXNlcjpwQHNz"}
    assert "p%40ss" not in repr(url)


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("http://h", "http://h/"),
        ("http://h:80/x", "http://h/x"),
        ("http://h:443/x", "http://h:443/x"),
        ("http://[::1]:8000/x", "http://[::1]:8000/x"),
        ("http://h/%2e%2Fx?a=%20", "http://h/%2e%2Fx?a=%20"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
    ],
)
def test_normal_form(text: str, again: str) -> None:
    assert str(split_url(text)) == again
    assert split_url(again) == split_url(text)


@pytest.mark.parametrize(
    "text",
    ["", "/x", "file:///etc/passwd", "ftp://h/", "http://", "http:///x", "http://h:x/", "http://h:99999/",
     "http://a b/", "http://[::1/"],
)  # fmt: skip
def test_what_cannot_be_asked(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (any ValueError becomes an AxonError below)
        split_url(text)
    with pytest.raises(UnavailableError) as caught:
        target_of(text)
    assert not caught.value.transient


@given(st.text())
def test_any_text_is_a_url_or_a_value_error(text: str) -> None:
    try:
        url = split_url("http://h/" + text)
    except ValueError:
        return
    assert url.target.isascii()
    assert not any(char <= " " or char == "\x7f" for char in url.target)
    assert split_url(str(url)) == url


@pytest.mark.parametrize(
    ("location", "to"),
    [
        ("/y?z", "http://h:8000/y?z"),
        ("y", "http://h:8000/a/y"),
        ("//other/y", "http://other/y"),
        ("https://h/y", "https://h/y"),
        ("http://me:secret@other/y", "http://other/y"),
    ],
)
def test_a_redirect_is_followed(location: str, to: str) -> None:
    following = follow(split_url("http://h:8000/a/x?token=s"), location)
    assert str(following) == to
    assert following.userinfo == ""


@pytest.mark.parametrize("location", [None, "", "file:///etc/passwd", "gopher://h/", "http://h:x/"])
def test_a_redirect_to_nowhere_is_refused(location: str | None) -> None:
    with pytest.raises(UnavailableError) as caught:
        follow(split_url("http://h/x"), location)
    assert not caught.value.transient


def test_https_is_never_left() -> None:
    with pytest.raises(UnavailableError, match="from https"):
        follow(split_url("https://h/x"), "http://h/x")


@pytest.mark.parametrize(
    ("to", "kept"),
    [("http://h/y", True), ("http://h:81/y", False), ("https://h/y", False), ("http://i/y", False)],
)
def test_credentials_stay_with_their_origin(to: str, kept: bool) -> None:
    secrets = {"Authorization": "Bearer t"}
    assert bool(carried(secrets, split_url("http://h/x"), split_url(to))) is kept


def test_no_secret_is_shown() -> None:
    assert shown("https://me:pw@h:1/p?X-Signature=s#f") == "https://h:1/p?…"
    assert shown("http://h/\x1b[31m") == "http://h/?[31m"
    assert shown("http://[") == "an invalid URL"
