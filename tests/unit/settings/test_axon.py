"""Axon's config file: what of it counts, when, and that it is never written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from axonfs.errors import UsageError
from axonfs.settings import settings
from axonfs.settings.axon import HUB, translated
from axonfs.settings.editing import edit_config
from axonfs.settings.keys import KEYS
from axonfs.settings.settings import Settings, load, resolve

# As `axon init` writes it, with a mirror and a token filled in.
WHOLE = """\
home_dir: /home/someone/.axon
cache_dir: /home/someone/.axon/cache
registry:
    url: https://registry.example.org/
    mirrors: [https://mirror.example.org]
    enable_huggingface: true
    huggingface_token: hf_s3cret
    timeout: 120
download:
    parallel: 3
    max_retries: 2
    verify_checksums: true
log_level: info
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory, on a machine without settings."""
    for name in list(os.environ):
        if name.startswith("AXONFS_"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(settings, "SYSTEM_CONFIG", tmp_path / "etc/config.yaml")
    return tmp_path


def axon_file(home: Path, text: str = WHOLE) -> Path:
    path = home / ".axon/config.yaml"
    path.parent.mkdir()
    path.write_text(text)
    return path


def test_every_key_that_means_something_counts(home: Path) -> None:
    axon_file(home)
    settings = load()
    assert settings.registries == ("https://registry.example.org", "https://mirror.example.org")
    assert (settings.deadline, settings.streams, settings.retries) == (120.0, 3, 2)
    assert settings.token(HUB) == "hf_s3cret"
    assert settings.cache == Settings().cache


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("registry: {url: http://a}", {"registries": ("http://a",)}),
        ("registry: {mirrors: [http://b, http://c]}", {"registries": ("http://b", "http://c")}),
        ("registry: {timeout: 9}", {"deadline": 9.0}),
        ("download: {parallel: 2}", {"streams": 2}),
        ("download: {max_retries: 0}", {"retries": 0}),
        ("registry: {timeout: 0, url: '', mirrors: [], huggingface_token: ''}", {}),
        ("registry:\ndownload:\nlog_level: debug", {}),
        ("registry: [1]\ndownload: x", {}),
        ("", {}),
    ],
)
def test_one_key_keeps_every_other_default(
    home: Path, text: str, changed: dict[str, object]
) -> None:
    axon_file(home, text)
    loaded, plain = load(), Settings()
    for name in KEYS:
        assert getattr(loaded, name) == changed.get(name, getattr(plain, name)), name


def test_where_a_value_comes_from_is_told(home: Path) -> None:
    path = axon_file(home)
    provenance = {name: where for name, (_, where) in resolve({}).items()}
    assert provenance["streams"] == f"{path} (download.parallel)"
    assert provenance["registries"] == f"{path} (registry.url)"
    assert provenance["cache"] == "default"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("registry: {timeout: soon}", r"deadline: 'soon'.*registry\.timeout"),
        ("registry: {url: 'ftp://x'}", r"registries: .*registry\.url"),
        ("download: {parallel: 0.5}", r"streams: '0\.5'.*download\.parallel"),
        ("- a", "not a mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_a_bad_value_is_refused_with_its_key_there(home: Path, text: str, words: str) -> None:
    path = axon_file(home, text)
    with pytest.raises(UsageError, match=words) as caught:
        load()
    assert str(path) in str(caught.value)


def test_a_file_of_ours_goes_before_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axon_file(home)
    own = home / ".config/axonfs/config.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("streams: 7\n")
    assert (load().streams, load().registries) == (7, ())
    own.unlink()
    monkeypatch.setenv("AXONFS_CONFIG", str(tmp_path / "absent.yaml"))
    assert load() == Settings()
    monkeypatch.delenv("AXONFS_CONFIG")
    system = tmp_path / "etc/config.yaml"
    system.parent.mkdir()
    system.write_text("streams: 5\n")
    assert load().streams == 5


def test_a_variable_goes_before_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axon_file(home)
    monkeypatch.setenv("AXONFS_STREAMS", "11")
    assert load().streams == 11


def test_the_first_edit_makes_a_file_of_ours_and_leaves_axon_s_alone(home: Path) -> None:
    path = axon_file(home)
    before = path.read_bytes(), path.stat().st_mtime_ns
    with edit_config() as document:
        document["streams"] = 9
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    own = yaml.safe_load((home / ".config/axonfs/config.yaml").read_text())
    assert own["streams"] == 9
    assert own["registries"] == ["https://registry.example.org/", "https://mirror.example.org"]
    assert load().token(HUB) == "hf_s3cret"
    assert [item.name for item in path.parent.iterdir()] == ["config.yaml"]


def test_the_name_of_a_key_there_is_no_name_here(home: Path) -> None:
    with pytest.raises(UsageError, match="here it is streams"):
        settings.check_key("download.parallel")


def test_what_is_not_set_there_is_not_set_here() -> None:
    assert translated({}) == {}
