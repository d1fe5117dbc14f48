"""Site caches in the config file, in variables and in flags."""

from pathlib import Path

import pytest
import yaml

from axonfs.errors import UsageError
from axonfs.settings.applied import plain
from axonfs.settings.settings import load, read_config, resolve
from axonfs.settings.via import Via, parse_cache_url

URL, OTHER, CACHE = (
    "https://reg.example/models",
    "s3://bucket/models?region=x",
    "http://cache:8080/m",
)


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.yaml"
    monkeypatch.setenv("AXONFS_CONFIG", str(path))
    monkeypatch.setenv("AXONFS_CACHE_DIR", str(tmp_path / "cache"))
    return path


def write(config: Path, **document: object) -> None:
    config.write_text(yaml.safe_dump(document))


def test_items_of_the_config_file_name_their_caches(config: Path) -> None:
    registry = {"url": URL + "/", "via": [CACHE + "/", "http://b"], "fallback": "never"}
    write(
        config, registries=[registry, OTHER], sources=["modelscope", {"name": "hf", "via": CACHE}]
    )
    settings = load()
    assert (settings.registries, settings.sources) == ((URL, OTHER), ("hf", "modelscope"))
    assert settings.via == {
        URL: Via((CACHE, "http://b"), "never"),
        "hf": Via((CACHE,), "origin"),
    }


def test_the_setting_via_has_the_same(config: Path) -> None:
    via = {URL: {"caches": [CACHE], "fallback": "never"}, "hf": CACHE, OTHER: [CACHE]}
    write(config, registries=[URL, OTHER], via=via, fallback="origin")
    settings = load()
    assert settings.via == {
        URL: Via((CACHE,), "never"),
        "hf": Via((CACHE,), "origin"),
        OTHER: Via((CACHE,), "origin"),
    }
    assert plain("via", settings.via)[URL] == {"caches": [CACHE], "fallback": "never"}


def test_a_variable_or_a_flag_is_for_the_first_registry_or_names_another(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(config, registries=[{"url": URL, "via": "http://old"}, OTHER])
    monkeypatch.setenv("AXONFS_VIA", f"{CACHE} http://b  hf=http://c s3://bucket/models=http://d")
    monkeypatch.setenv("AXONFS_FALLBACK", "never")
    found = resolve({})
    assert found["via"] == (
        {
            URL: Via((CACHE, "http://b"), "never"),
            "hf": Via(("http://c",), "never"),
            OTHER: Via(("http://d",), "never"),
        },
        "AXONFS_VIA",
    )
    flags = {"via": ("http://e", f"{OTHER}=http://f"), "fallback": "origin"}
    assert resolve(flags)["via"] == (
        {URL: Via(("http://e",), "origin"), OTHER: Via(("http://f",), "origin")},
        "flag",
    )


def test_a_fallback_for_this_process_is_for_all_sources(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = {"url": URL, "via": CACHE, "fallback": "origin"}
    write(config, registries=[registry], fallback="never")
    assert load().via[URL].fallback == "origin"
    monkeypatch.setenv("AXONFS_FALLBACK", "never")
    assert load().via[URL].fallback == "never"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("ftp://cache", "is not an http:// or https:// URL of a site cache"),
        ("cache:8080", "is not an http:// or https:// URL of a site cache"),
        (
            "http://user:secret@cache",
            "has credentials in it; a site cache gets those of the source",
        ),
        ("http://cache/m?x=1", "has a query"),
        ("http://ca che", "has spaces"),
        ("http://cache:99999", "is not an http:// or https:// URL of a site cache"),
        ("srv+http://cache.example", "has no name of SRV records"),
        ("srv+http://_axonfs._tcp.site.example:80", "has no name of SRV records"),
    ],
)
def test_hostile_cache_urls_are_refused(value: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("+", r"\+")):
        parse_cache_url(value)


def test_a_name_of_srv_records_is_accepted() -> None:
    url = "srv+https://_axonfs._tcp.site.example/m"
    assert parse_cache_url(url + "/") == url


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"registries": [{"url": URL, "fallback": "never"}]}, "has a fallback, and no site caches"),
        (
            {"registries": [{"url": URL, "via": ["http://u:secret@c"]}]},
            "'http://…@c' has cred",
        ),
        (
            {"registries": [{"url": URL, "via": CACHE, "fallback": "maybe"}]},
            "'maybe' is not one",
        ),
        ({"registries": [{"url": URL, "caches": CACHE}]}, "'caches' is not a key of a registry"),
        ({"sources": [{"name": "hf", "url": CACHE}]}, "sources: 'url' is not a key of a source"),
        ({"sources": [{"name": "x", "via": CACHE}]}, "sources: 'x' is neither 'none' nor"),
        ({"via": {"/srv/models": CACHE}}, "is a directory, which has no site caches"),
        ({"via": {"oci://r.example?mirror=m.example": CACHE}}, "has mirrors, so it can have no"),
        ({"via": {URL: {"caches": [], "fallback": "never"}}}, "is not a list of the URLs"),
        ({"via": {URL: {"urls": CACHE}}}, "'urls' is not a key of site caches"),
        ({"via": 7}, "is not a mapping of registry URLs"),
        ({"via": CACHE}, "names no source, and no registry is configured"),
    ],
)
def test_what_the_config_file_may_not_say(
    config: Path, document: dict[str, object], said: str
) -> None:
    write(config, **document)
    with pytest.raises(UsageError) as caught:
        load()
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_source_that_is_not_configured_is_refused_in_a_flag(config: Path) -> None:
    write(config, registries=[URL])
    with pytest.raises(UsageError, match="neither a configured registry nor a hub"):
        load({"via": ("https://regg.example=http://c",)})


def test_an_edit_sees_plain_lists(config: Path) -> None:
    write(config, registries=[{"url": URL, "via": CACHE}], sources=[{"name": "hf", "via": CACHE}])
    assert read_config(config) == {
        "registries": [URL],
        "sources": ["hf"],
        "via": {URL: {"caches": CACHE}, "hf": {"caches": CACHE}},
    }
