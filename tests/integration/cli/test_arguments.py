"""What a command is given as a path, a URL or a name is what it can be, or is refused by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import Run
from tests.support.registry import SPEC, make_model

URLS = ("http://models.example.org/r", "s3://bucket/r", "oci://host/r", "HTTPS://h/r", "http:/h/r")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory: what a command makes of a relative path would be in it."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.mark.parametrize("url", URLS)
def test_a_url_in_place_of_a_path_is_refused_and_nothing_is_made(
    run: Run, here: Path, tmp_path: Path, url: str
) -> None:
    model = make_model(tmp_path / "model")
    for line in (
        ["publish", url, SPEC, "--to", tmp_path / "reg"],
        ["registry", "serve", url],
        ["list", "--cache", url],
        ["config", "set", "cache", url],
        ["mount", url],
        ["lock", url],
        ["pin", "--lock", url],
        ["manifest", "lint", url],
    ):
        done = run(*line)
        assert (done.code, done.out) == (2, ""), line
        assert f"'{url}' is a URL" in done.err
    if not url.startswith(("s3://", "oci://", "http://")):
        done = run("publish", model, SPEC, "--to", url)
        assert (done.code, done.out) == (2, "")
        assert f"'{url}' is a URL" in done.err
        assert "give a path" in done.err
    assert list(here.iterdir()) == []
    assert not (tmp_path / "reg").exists()


def test_a_url_in_a_variable_is_refused_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXONFS_CACHE_DIR", "s3://bucket/x")
    assert "(from AXONFS_CACHE_DIR)" in run("list").err
    monkeypatch.setenv("AXONFS_CONFIG", "http://host/config.yaml")
    assert run("list").err.endswith("(from AXONFS_CONFIG)\n")


def test_a_file_url_is_the_directory_it_names(run: Run, tmp_path: Path) -> None:
    model, registry = make_model(tmp_path / "model"), tmp_path / "a reg"
    url = registry.as_uri()
    assert "%20" in url
    assert run("publish", model.as_uri(), SPEC, "--to", url).code == 0
    assert (registry / "api/v1/index.json").exists()
    command = [sys.executable, "-m", "axonfs", "registry", "serve", url, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        assert serving.stdout.readline().startswith("serving http://127.0.0.1:")
        serving.terminate()
    far = run("publish", model, SPEC, "--to", "file://elsewhere/reg")
    assert "not a file URL of this machine" in far.err


def test_a_tilde_that_no_shell_replaced_is_the_home_directory(
    run: Run, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert run("publish", make_model(tmp_path / "model"), SPEC, "--to", "~/reg").code == 0
    assert (tmp_path / "home/reg/api").is_dir()
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("hub", ["hf", "modelscope"])
def test_a_hubs_namespace_is_not_published_into(run: Run, tmp_path: Path, hub: str) -> None:
    registry = tmp_path / "reg"
    done = run("publish", make_model(tmp_path / "model"), f"{hub}/x@1", "--to", registry)
    assert done.code == 2
    assert f"{hub}/x@1: mounts look for models below {hub}/ on that hub" in done.err
    assert not registry.exists()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://h/a b", "'http://h/a b' has spaces"),
        ("http://h/?sig=1", "'http://h/?sig=1' has a query"),
        ("http://u:pw@h/", "'http://…@h/' has credentials"),
        ("s3://bucket?x=1", "'s3://bucket?x=1' has an unknown option; options: profile, region"),
        (
            "srv/registry",
            "'srv/registry' is not an http://, https://, s3:// or oci:// URL, nor a path",
        ),
        ("file://host/srv", "'file://host/srv' is not a file URL of this machine"),
    ],
)
def test_a_url_that_no_registry_has_is_shown_as_it_was_typed(
    run: Run, url: str, reason: str
) -> None:
    for line in (["registry", "add", url], ["registry", "set", "default", url]):
        assert run(*line).err.startswith(f"axonfs: registries: {reason}")
    assert reason in run("search", "x", "--registry", url).err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("registries: [http://h, 'http://a b']", "registries: 'http://a b' has spaces"),
        ("registries: {a: b}", "registries: a mapping is not a list of URLs"),
        (
            "registries: [1, null]",
            "registries: '1' is not an http://, https://, s3:// or oci:// URL, nor a path",
        ),
        ("sources: [hf, moon]", "sources: 'hf moon' is neither 'none' nor a list of"),
        ("offline: null", "offline: 'null' is neither true nor false"),
        ("mountpoint: [1, true]", "mountpoint: '1 true' is not a path"),
    ],
)
def test_a_config_file_is_quoted_as_it_is_written(
    run: Run, tmp_path: Path, text: str, shown: str
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert run("list").err.startswith(f"axonfs: {shown}")


def test_a_name_that_is_not_utf8_is_called_that(run: Run, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    Path(f"{model}/caf\udce9").touch()
    done = run("publish", model, SPEC, "--to", tmp_path / "reg")
    assert "the path 'caf?' is not UTF-8; rename the file" in done.err
