"""`axonfs registry` and the config file: what a registry is allowed, beside URL and token."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import yaml

from axonfs.settings.settings import config_path, load
from axonfs.settings.via import Via
from tests.support.commands import Run

URL, OTHER = "https://models.example.org", "http://other.example.org"


def test_a_registry_is_allowed_and_no_longer_allowed(run: Run) -> None:
    run("registry", "add", OTHER)
    assert run("registry", "add", URL, "--allow-unverified").code == 0
    assert load().allow_unverified == (URL,)
    listed = {item["url"]: item for item in json.loads(run("registry", "list", "--json").out)}
    assert listed[URL] == {
        "url": URL,
        "token": False,
        "allow_unverified": True,
        "via": [],
        "fallback": None,
    }
    assert listed[OTHER]["allow_unverified"] is False
    assert " allowed " in run("registry", "list").out
    run("registry", "set", "default", URL)  # says nothing of it
    assert load().allow_unverified == (URL,)
    run("registry", "set", "default", URL, "--no-allow-unverified")
    assert load().allow_unverified == ()
    assert " allowed " not in run("registry", "list").out
    run("registry", "add", URL + "/", "--allow-unverified")
    run("registry", "remove", URL)
    assert load().allow_unverified == ()


def test_an_item_of_registries_may_be_a_mapping(run: Run, tmp_path: Path) -> None:
    """And stays in effect over an edit."""
    config = tmp_path / "config.yaml"
    item = {"url": URL + "/", "token": "s3cret", "allow_unverified": True}
    config.write_text(yaml.safe_dump({"registries": [OTHER, item]}))
    assert run("registry", "list").code == 2, "others can read the token"
    config.chmod(0o600)
    for _ in range(2):
        settings = load()
        assert settings.registries == (OTHER, URL)
        assert (settings.token(URL), settings.token(OTHER)) == ("s3cret", None)
        assert settings.allow_unverified == (URL,)
        assert run("config", "set", "streams", "4").code == 0


@pytest.mark.parametrize(
    ("item", "what"),
    [
        ({"url": URL, "tokens": "x"}, "'tokens'"),
        ({"token": "x"}, "URL"),
        ({"url": URL, "allow_unverified": "perhaps"}, "true nor false"),
    ],
)
def test_an_invalid_mapping_is_wrong_usage(
    run: Run, tmp_path: Path, item: dict[str, str], what: str
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"registries": [item]}))
    config.chmod(0o600)
    done = run("config", "list")
    assert done.code == 2
    assert what in done.err
    assert str(config) in done.err


def test_the_variable_names_registries(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXONFS_ALLOW_UNVERIFIED", f"{URL} {OTHER}/")
    assert load().allow_unverified == (URL, OTHER)


def test_site_caches_are_set_replaced_listed_and_removed(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run("registry", "add", URL, "--via", "http://a:80/m/", "--via", "http://b").out
    assert f"{URL} is asked through http://a:80/m, http://b" in said
    run("registry", "add", URL, "--fallback", "never")
    assert load().via == {URL: Via(("http://a:80/m", "http://b"), "never")}
    listed = json.loads(run("registry", "list", "--json").out)
    assert (listed[0]["via"], listed[0]["fallback"]) == (["http://a:80/m", "http://b"], "never")
    assert f"via: {URL} through http://b, never itself" in run("registry", "list").out
    run("registry", "add", URL, "--via", "http://c")
    run("registry", "add", "hf", "--via", "http://c")
    assert load().via == {URL: Via(("http://c",), "never"), "hf": Via(("http://c",), "origin")}
    assert run("config", "get", "via").out.strip() == f"{URL}=http://c hf=http://c"
    assert [item["url"] for item in json.loads(run("registry", "list", "--json").out)] == [
        URL,
        "hf",
    ]
    run("registry", "add", "hf", "--no-via")
    run("registry", "remove", URL)
    assert load().via == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((URL, "--fallback", "never"), "has no site caches"),
        ((URL, "--via", "http://u:secret@c"), "has credentials in it"),
        ((URL, "--via", "file:///srv"), "is not an http:// or https:// URL of a site cache"),
        ((URL, "--no-via", "--via", "http://c"), "--no-via does not go with --via"),
        (("hf",), "hf is a hub, of which only the site caches can be set"),
        (("/srv/models", "--via", "http://c"), "is a directory, which has no site caches"),
    ],
)
def test_site_caches_that_are_refused(run: Run, arguments: tuple[str, ...], said: str) -> None:
    done = run("registry", "add", *arguments)
    assert done.code == 2
    assert said in done.err
    assert "secret" not in done.err
    assert load().registries == ()


def test_site_caches_of_a_mapping_survive_an_edit(tmp_path: Path, run: Run) -> None:
    item = {"url": URL, "via": ["http://c"], "fallback": "never"}
    config_path().write_text(yaml.safe_dump({"registries": [item, OTHER]}))
    assert run("config", "set", "streams", "8").code == 0
    assert load().via == {URL: Via(("http://c",), "never")}
    assert run("config", "set", "via", "http://c").code == 2
    assert run("config", "set", "fallback", "never").code == 0


def test_a_token_over_plain_http_to_a_cache_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("s3cret\n"))
    done = run("registry", "add", URL, "--via", "http://c", "--via", "https://d", "--with-token")
    assert f"the token of {URL} is sent to http://c over plain HTTP" in done.err
    assert "s3cret" not in done.err + done.out
    assert "plain HTTP" not in run("registry", "add", URL, "--via", "http://127.0.0.1:80").err
