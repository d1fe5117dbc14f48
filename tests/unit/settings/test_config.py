"""Settings: who beats whom, what is refused, and how the file is edited."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import yaml

from axonfs.errors import UsageError
from axonfs.settings import settings
from axonfs.settings.editing import edit_config
from axonfs.settings.keys import KEYS
from axonfs.settings.parsers import parse_registry_url
from axonfs.settings.settings import Settings, config_path, load, read_config


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config file of this test's own, and no variable of the caller's."""
    for name in list(os.environ):
        if name.startswith("AXONFS_"):
            monkeypatch.delenv(name)
    path = tmp_path / "conf" / "config.yaml"
    monkeypatch.setenv("AXONFS_CONFIG", str(path))
    return path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)


@pytest.mark.parametrize("text", [
    "deadline: 2020-13-45", "retries: " + "1" * 5000, "retries: !!int ''", "retries: !!float x",
    "!!timestamp x: 3", "!!bool x: 1", "streams: 3 # " + "x" * (1 << 20),
])  # fmt: skip
def test_no_text_in_the_file_is_a_bug(file: Path, text: str) -> None:
    write(file, text)
    with pytest.raises(UsageError, match=r"the config file is not YAML|more than 1 MiB"):
        load()


def test_a_pipe_is_not_waited_for(file: Path) -> None:
    file.parent.mkdir()
    os.mkfifo(file)
    with pytest.raises(UsageError, match="is a pipe"):
        load()


def test_without_a_file_everything_is_at_its_default(file: Path) -> None:
    assert load() == Settings()
    assert load().cache_size is None
    assert load().deadline == 60.0


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, "cache: /from/file\ncache_size: 1G\nstreams: 3\ndeadline: 5\n")
    monkeypatch.setenv("AXONFS_CACHE_DIR", "/from/variable")
    monkeypatch.setenv("AXONFS_CACHE_SIZE", "2G")
    settings = load({"cache": "/from/flag"})
    assert settings.cache == Path("/from/flag")
    assert settings.cache_size == 2 << 30
    assert settings.streams == 3
    assert settings.deadline == 5.0


@pytest.mark.parametrize(("text", "mode"), [("off", "off"), ("ALL", "all"), ("auto", "auto")])
def test_prefetch_is_off_even_as_yaml_reads_it(file: Path, text: str, mode: str) -> None:
    write(file, f"prefetch: {text}\n")
    assert load().prefetch == mode


@pytest.mark.parametrize(
    ("text", "rate"), [("500M", 500 << 20), ("64K", 64 << 10), ("off", 0), ("0", 0)]
)
def test_a_bandwidth(file: Path, text: str, rate: int) -> None:
    write(file, f"bandwidth: {text}\n")
    assert load().bandwidth == load({"bandwidth": text}).bandwidth == rate


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("63.9K", "is less than 64K bytes per second, the lowest limit; off is no limit"),
        ("500", "is not a rate; write off, or bytes per second like 32M"),
        ("500Mbit", "is not a rate; write off, or bytes per second like 32M"),
        ("auto", "is not a rate; write off, or bytes per second like 32M"),
    ],
)
def test_a_bandwidth_that_cannot_be_kept(
    file: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    """The message says where it was read: a flag, a variable or the file."""
    with pytest.raises(UsageError, match=f"bandwidth: '{text}' {why}") as flag:
        load({"bandwidth": text})
    write(file, f"bandwidth: {text}\n")
    with pytest.raises(UsageError, match=f"'{text}' {why}") as read:
        load()
    monkeypatch.setenv("AXONFS_BANDWIDTH", text)
    with pytest.raises(UsageError, match=f"'{text}' {why}") as variable:
        load()
    sources = [caught.value.source for caught in (flag, read, variable)]
    assert sources == ["the command line", str(file), "AXONFS_BANDWIDTH"]


def test_an_empty_variable_and_an_absent_flag_say_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, "registries: [http://one]\noffline: true\n")
    monkeypatch.setenv("AXONFS_REGISTRY", "")
    settings = load({"registries": (), "offline": None})
    assert settings.registries == ("http://one",)
    assert settings.offline is True


def test_a_flag_can_switch_off_what_the_file_switches_on(file: Path) -> None:
    write(file, "offline: true\n")
    assert load({"offline": False}).offline is False


def test_registries_are_separated_by_blanks_and_named_once(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AXONFS_REGISTRY", "http://a/  https://b/x/ http://a")
    assert load().registries == ("http://a", "https://b/x")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://models", "s3://models"),
        ("s3://models/prod/", "s3://models/prod"),
        (
            "s3://models/prod/?region=eu-west-1&endpoint_url=http://h:9",
            "s3://models/prod?region=eu-west-1&endpoint_url=http://h:9",
        ),
        ("/srv/reg/", "file:///srv/reg"),
        ("/srv/a b%ü", "file:///srv/a%20b%25%C3%BC"),
        ("file:///srv/a%20b", "file:///srv/a%20b"),
        ("./reg", "file:///srv/reg"),
        ("~/reg", "file:///home/ada/reg"),
        ("./~reg", "file:///srv/~reg"),
    ],
)
def test_a_registry_is_a_bucket_or_a_directory_too(
    text: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setattr("os.getcwd", lambda: "/srv")
    assert parse_registry_url(text) == url
    assert parse_registry_url(url) == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s3://", "no valid bucket"),
        ("s3://key:secret@models/x", "no valid bucket"),
        ("s3://models/a b", "percent-encoded"),
        ("s3://models/a/%2e%2e/b", "has . or .. in its path"),
        ("s3://models?endpoint_url=h:9", "an endpoint_url that is no http or https URL"),
        ("s3://models?endpoint_url=http://key:secret@h", "an endpoint_url that is no http"),
        ("s3://models?sse=rot13", "invalid sse; allowed: AES256, aws:kms"),
        ("s3://models?region", "malformed query"),
        ("s3://models?color=red", "unknown option; options: profile, region"),
        ("file://server/share", "not a file URL of this machine"),
        ("models", "nor a path like /srv/registry"),
    ],
)
def test_a_url_that_no_registry_can_have_says_why(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_registry_url(url)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("cache_size: lots", "cache_size: 'lots'"),
        ("cache_size: -5", "cache_size: '-5'"),
        ("prefetch: on", "prefetch: 'true'"),
        ("prefetch: some", "prefetch: 'some'"),
        ("streams: 0", "streams: '0'"),
        ("streams: true", "streams: 'true'"),
        ("deadline: soon", "deadline: 'soon'"),
        ("deadline: .nan", "deadline: 'nan'"),
        ("offline: perhaps", "offline: 'perhaps'"),
        ("registries: [ftp://x]", "registries: "),
        ("registries: [http://]", "registries: "),
        ("registries: ['http://x:99999']", "registries: "),
        ("registries: {a: b}", "registries: "),
        ("registries: ['http://x/?q=1']", "query"),
        ("cache: [1]", "cache: "),
        ("tokens: secret", "tokens: "),
        ("registries: [{url: 'http://a', token: x}]\ntokens: foo", "tokens: is not a mapping"),
        ("registries: [{url: 'ftp://x'}]", "registries: 'ftp://x'"),
        ("registries: [{uri: 'http://a'}]", "'uri' is not a key of a registry"),
        ("offlne: true", "no setting 'offlne'"),
        ("- a\n- b", "not a mapping"),
        ("a: [", "not YAML"),
        ("!!python/object:os.system x", "not YAML"),
    ],
)
def test_a_bad_file_is_refused_with_its_key_and_its_name(file: Path, text: str, named: str) -> None:
    write(file, text)
    with pytest.raises(UsageError) as caught:
        load()
    assert named in str(caught.value)
    assert str(file) in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_bad_variable_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXONFS_CACHE_SIZE", "huge")
    with pytest.raises(UsageError, match=r"cache_size: 'huge'.*AXONFS_CACHE_SIZE"):
        load()


def test_credentials_in_a_url_are_refused_and_not_shown_by_the_advice(file: Path) -> None:
    with pytest.raises(UsageError, match="--with-token"):
        load({"registries": ("https://me:secret@host",)})


@pytest.mark.parametrize("token", ["", "two words", "line\nfeed", "späti", "x" * 9000])
def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(file: Path, token: str) -> None:
    write(file, yaml.safe_dump({"tokens": {"http://a": token}}))
    with pytest.raises(UsageError) as caught:
        load()
    assert not token or token not in str(caught.value)


def test_a_token_belongs_to_one_registry_and_is_in_no_repr(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, "registries: [http://a, http://b]\ntokens: {http://b/: s3cret}\n")
    settings = load()
    assert settings.token("http://b") == "s3cret"
    assert settings.token("http://a") is None
    assert "s3cret" not in repr(settings)
    monkeypatch.setenv("AXONFS_TOKEN", "fromenv")
    assert (load().token("http://a"), load().token("http://b")) == ("fromenv", "s3cret")


def test_an_edit_writes_a_file_for_its_owner_alone(file: Path) -> None:
    with edit_config() as document:
        document["registries"] = ["http://a"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert load().registries == ("http://a",)
    assert [path.name for path in file.parent.iterdir()] == ["config.yaml"]


def test_an_edit_keeps_the_other_keys(file: Path) -> None:
    write(file, "streams: 3\ndeadline: 5\n")
    with edit_config() as document:
        document["streams"] = 4
    assert read_config(file) == {"streams": 4, "deadline": 5}


def test_a_failed_edit_leaves_the_file_as_it_was(file: Path) -> None:
    write(file, "streams: 3\n")
    with pytest.raises(UsageError), edit_config() as document:
        document["streams"] = 0
    with pytest.raises(ZeroDivisionError), edit_config() as document:
        document["streams"] = 5 // 0
    assert file.read_text() == "streams: 3\n"
    assert [path.name for path in file.parent.iterdir()] == ["config.yaml"]


def test_an_edit_of_a_linked_file_keeps_the_link(file: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.yaml"
    real.write_text("streams: 3\n")
    file.parent.mkdir()
    file.symlink_to(real)
    with edit_config() as document:
        document["streams"] = 4
    assert file.is_symlink()
    assert real.read_text() == "streams: 4\n"


def test_two_edits_at_once_are_one_after_the_other(file: Path) -> None:
    import threading

    def edit(number: int) -> None:
        with edit_config() as document:
            document["registries"] = [*document.get("registries", []), f"http://r{number}"]

    threads = [threading.Thread(target=edit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(load().registries) == [f"http://r{number}" for number in range(8)]


def test_the_own_file_goes_before_the_system_one(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AXONFS_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    system = tmp_path / "etc" / "config.yaml"
    monkeypatch.setattr(settings, "SYSTEM_CONFIG", system)
    own = tmp_path / "home" / "axonfs" / "config.yaml"
    assert config_path() == own
    write(system, "streams: 2\n")
    assert config_path() == system
    own.parent.mkdir(parents=True)
    own.write_text("streams: 3\n")
    assert load().streams == 3


def test_a_path_is_made_absolute_and_a_home_is_expanded(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert load({"cache": "x/../y"}).cache == tmp_path / "y"
    assert load({"mountpoint": "~/m"}).mountpoint == Path("/home/someone/m")


def test_every_variable_is_named_once() -> None:
    variables = [key.variable for key in KEYS.values() if key.variable]
    assert len(set(variables)) == len(variables)
    assert all(variable.startswith("AXONFS_") for variable in variables)
